//! Who wants to harm: strangers without a certificate from many addresses of this machine, and a caller with one whose
//! HTTP/2 keeps no rule. One thread does it, so that a flood has one core at most.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brevet::clock::since_boot;
use brevet_client::Endpoints;
use brevet_identity::tls;
use brevet_identity::trust::{Bundle, ServerTrust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::time_provider::DefaultTimeProvider;
use rustls::{ClientConfig, ClientConnection};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::process::obey;
use crate::{Failure, world};

/// Sockets that are held open at once.
const HELD_MAX: usize = 4_000;
/// Frames in one write.
const FRAMES: u32 = 100;

/// What the flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Connections that say nothing.
    Silent,
    /// Connections that begin a ClientHello and never end it.
    Slow,
    /// Connections that have the daemon make its half of a handshake, and say no more.
    Half,
    /// Connections that send garbage.
    Garbage,
    /// Calls that are reset at once.
    RapidReset,
    /// Header fields without an end.
    Continuations,
    /// Pings.
    Pings,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Silent,
        Self::Slow,
        Self::Half,
        Self::Garbage,
        Self::RapidReset,
        Self::Continuations,
        Self::Pings,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent connections",
            Self::Slow => "slow handshakes",
            Self::Half => "half handshakes",
            Self::Garbage => "garbage",
            Self::RapidReset => "rapid resets",
            Self::Continuations => "endless header fields",
            Self::Pings => "pings",
        }
    }
}

/// One flood.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Flood {
    pub(super) kind: Kind,
    pub(super) time: Duration,
}

/// Floods as ordered until standard input closes, and tells how many connections or frames it sent.
pub(crate) fn flood(dir: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoints = Endpoints::read(dir)?;
    let address: SocketAddr = endpoints.grpc.trim_start_matches("https://").parse()?;
    obey(|Flood { kind, time }| {
        let config = Arc::new(client_config(dir, &endpoints)?);
        let hello = hello(&config)?;
        runtime.block_on(async {
            let (end, mut sent, mut held) = (since_boot() + time, 0, std::collections::VecDeque::new());
            while since_boot() < end {
                match opening(kind, &hello) {
                    Some(bytes) => {
                        // What is refused is a part of the flood as well.
                        if let Ok(mut stream) = dial(address, sent).await {
                            let _refused = stream.write_all(bytes).await;
                            held.push_back(stream);
                        }
                        sent += 1;
                        if held.len() > HELD_MAX {
                            held.pop_front();
                        }
                    }
                    None => sent += frames(kind, address, &config, end).await,
                }
            }
            Ok(sent)
        })
    })
}

/// What a stranger sends, if the flood is one of strangers.
const fn opening(kind: Kind, hello: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Half => Some(hello),
        Kind::Silent => Some(&[]),
        Kind::Slow => Some(&[0x16, 3, 1, 1, 0, 1, 0]),
        Kind::Garbage => Some(&[0xa5; 512]),
        Kind::RapidReset | Kind::Continuations | Kind::Pings => None,
    }
}

/// A ClientHello that the daemon answers.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>, Failure> {
    let name = ServerName::try_from("localhost")?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}

/// Connects from one of sixty thousand addresses in as many networks as there are bytes.
async fn dial(address: SocketAddr, number: u64) -> std::io::Result<TcpStream> {
    let [.., third, fourth] = number.to_be_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, fourth, third | 1), 0)))?;
    socket.connect(address).await
}

/// Sends frames on a connection of its own until it ends.
async fn frames(kind: Kind, address: SocketAddr, config: &Arc<ClientConfig>, end: Duration) -> u64 {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    };
    let Ok(stream) = connecting.await else { return 0 };
    let (mut read, mut write) = tokio::io::split(stream);
    let mut sent = 0;
    let sending = async {
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        write.write_all(&frame(4, 0, 0, &[])).await?;
        for batch in 0.. {
            if since_boot() >= end {
                return Ok(());
            }
            write_batch(kind, batch, &mut write).await?;
            sent += u64::from(FRAMES);
        }
        std::io::Result::Ok(())
    };
    // The daemon's answers are taken, or it would be waiting for that.
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _over = sending => {}
        _closed = tokio::io::copy(&mut read, &mut nowhere) => {}
    }
    sent
}

async fn write_batch(kind: Kind, batch: u32, write: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for number in batch * FRAMES..(batch + 1) * FRAMES {
        match kind {
            Kind::RapidReset => {
                bytes.extend(frame(1, 5, number * 2 + 1, &call()));
                bytes.extend(frame(3, 0, number * 2 + 1, &[0, 0, 0, 8]));
            }
            Kind::Continuations if number == 0 => bytes.extend(frame(1, 0, 1, &call())),
            Kind::Continuations => bytes.extend(frame(9, 0, 1, &[0, 1, b'x', 1, b'y'].repeat(100))),
            _ => bytes.extend(frame(6, 0, 0, &[7; 8])),
        }
    }
    write.write_all(&bytes).await?;
    write.flush().await
}

/// The bytes of an HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length, &[kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// The header fields of a call, none of which is remembered (RFC 7541 section 6.2.2).
fn call() -> Vec<u8> {
    let path = "/brevet.v1.TaskService/ListTasks";
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    let plain = [("content-type", "application/grpc"), ("te", "trailers")];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or_default()], text.as_bytes()].concat();
    let field = |(name, value)| [vec![0], text(name), text(value)].concat();
    pseudo.into_iter().chain(plain).flat_map(field).collect()
}

fn client_config(dir: &Path, endpoints: &Endpoints) -> Result<ClientConfig, Failure> {
    let files = endpoints.identity(world::ENFORCER)?;
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<_, _>>()?;
    let authorities = Bundle::from_pem(&std::fs::read(dir.join("state/ca.pem"))?)?;
    let server = endpoints.server_spiffe_id.clone();
    let trust = Arc::new(ServerTrust::new([(server.trust_domain(), authorities)])?);
    let source: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trust));
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    Ok(tls::client_config(chain, key, source, server, Arc::new(DefaultTimeProvider))?)
}
