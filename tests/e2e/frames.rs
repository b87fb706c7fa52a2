//! A client of HTTP/2 that is not bound to its rules: frames made by hand over the daemon's own TLS (RFC 9113).

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::World;

/// No test waits for this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// RFC 9113 section 7.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field that neither side remembers (RFC 7541 section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0], text(name).as_slice(), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    [integer(7, text.len()).as_slice(), text.as_bytes()].concat()
}

/// An integer in so many bits of the first byte, the others of which are zero (RFC 7541 section 5.1).
pub(crate) fn integer(bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![u8::try_from(most).unwrap()], value - most);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The header fields of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    let plain = [("content-type", "application/grpc"), ("te", "trailers")];
    pseudo.into_iter().chain(plain).flat_map(|(name, value)| field(name, value)).collect()
}

/// What the server sent.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server said why (GOAWAY).
    Said(u32),
    /// It was closed or reset without a word.
    Closed,
    /// It has not: the server answered a ping that came after everything else.
    Alive,
}

/// A connection whose client does as it likes.
pub(crate) struct Attacker {
    stream: TlsStream<TcpStream>,
}

impl Attacker {
    /// Connects, and sends the preface and these settings.
    pub(crate) async fn connect(world: &World, config: ClientConfig, settings: &[u8]) -> Self {
        let address = world.endpoints().grpc.trim_start_matches("https://").to_owned();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut attacker = Self { stream };
        let opening =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, settings).as_slice()].concat();
        assert!(attacker.send(&opening).await);
        attacker
    }

    /// Sends bytes, unless the connection is over. What the server sends meanwhile is not read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(PATIENCE, sending).await.is_ok_and(|sent| sent.is_ok())
    }

    /// Sends as much of something as the server takes, at most so often.
    pub(crate) async fn flood(&mut self, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) {
        for number in 0..times {
            if !self.send(&bytes(number)).await {
                return;
            }
        }
    }

    /// The next frame, unless the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length.try_into().unwrap()];
            self.stream.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            std::io::Result::Ok(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a frame or an end").ok()
    }

    /// Reads until the connection is over, or until a ping that is sent now is answered, and keeps what came.
    pub(crate) async fn end(&mut self) -> (End, Vec<Frame>) {
        const MARK: &[u8] = b"the end!";
        // If that cannot be sent any more, the reading says why.
        let _sent = self.send(&frame(PING, 0, 0, MARK)).await;
        let (mut said, mut seen) = (End::Closed, Vec::new());
        while let Some(frame) = self.next().await {
            match frame.kind {
                GOAWAY => {
                    let code = frame.payload[4..8].try_into().unwrap();
                    said = End::Said(u32::from_be_bytes(code));
                }
                PING if frame.flags & ACK != 0 && frame.payload == MARK => return (End::Alive, seen),
                _ => seen.push(frame),
            }
        }
        (said, seen)
    }

    /// Answers pings until the server has closed the connection for another reason, at most for a while.
    pub(crate) async fn closed(&mut self) {
        let answering = async {
            while let Some(Frame { kind, flags, payload, .. }) = self.next().await {
                if kind == PING && flags & ACK == 0 {
                    self.send(&frame(PING, ACK, 0, &payload)).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answering).await.expect("an end of the connection");
    }
}
