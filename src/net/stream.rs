//! Two wrappers of a byte stream: how much may come in, and what was read ahead.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use brevet_core::sabotage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::clock::since_boot;

/// What is at once beyond the pace, as the time in which it would come.
const BURST: Duration = Duration::from_secs(1);

/// Bounds what is read: by its length as long as the peer is a stranger, by its pace afterwards, for whatever comes costs
/// CPU, and a peer that sends without end would take from others what the machine has of it.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// Bytes that may still be read.
    Length(usize),
    Pace(Pace),
}

/// A bucket of bytes, as the time since boot at which it will be full (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug)]
struct Pace {
    bytes_per_second: NonZeroU32,
    full_at: Duration,
    /// Until there are bytes in the bucket again.
    waits: Option<Pin<Box<Sleep>>>,
}

/// The peer sent too much before it was known.
#[derive(Debug, thiserror::Error)]
#[error("the handshake is too long")]
struct TooLong;

impl<S> Metered<S> {
    pub(super) const fn new(inner: S, length: usize) -> Self {
        Self { inner, bound: Bound::Length(length) }
    }

    /// From now on it may be as much as it will, but no faster than this.
    pub(super) fn pace(&mut self, bytes_per_second: NonZeroU32) {
        self.bound = Bound::Pace(Pace { bytes_per_second, full_at: since_boot(), waits: None });
    }
}

impl Metered<TcpStream> {
    /// Has the threads that run this wait for what the peer sends, instead of those that did so far.
    ///
    /// # Errors
    /// If the process may open no file more.
    pub(super) fn register_here(&mut self) -> io::Result<()> {
        // The socket has two descriptors for a moment, since the old one is registered until it is dropped.
        let again = self.inner.as_fd().try_clone_to_owned()?;
        self.inner = TcpStream::from_std(again.into())?;
        Ok(())
    }
}

impl Pace {
    /// Waits until something may be read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waits) = &mut self.waits {
            ready!(waits.as_mut().poll(cx));
            self.waits = None;
        }
        Poll::Ready(())
    }

    /// How long nothing may be read after so many bytes were.
    fn after(&mut self, bytes: usize, now: Duration) -> Option<Duration> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = bytes.saturating_mul(1_000_000_000) / u64::from(self.bytes_per_second.get());
        self.full_at = self.full_at.max(now) + Duration::from_nanos(nanos);
        let wait = self.full_at.saturating_sub(now).saturating_sub(BURST);
        Some(wait).filter(|wait| !wait.is_zero() && !sabotage::on("floods_are_read"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.bound {
            Bound::Length(0) if !sabotage::on("handshakes_are_endless") => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TooLong)));
            }
            Bound::Pace(pace) => ready!(pace.poll_ready(cx)),
            Bound::Length(_) => {}
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        match &mut self.bound {
            Bound::Length(left) => *left = left.saturating_sub(read),
            Bound::Pace(pace) if read > 0 => {
                let wait = pace.after(read, since_boot());
                pace.waits = wait.map(|wait| Box::pin(sleep(wait)));
            }
            Bound::Pace(_) => {}
        }
        result
    }
}

/// Gives back bytes that were read ahead before it goes on with the stream.
#[derive(Debug)]
pub(crate) struct Replayed<S> {
    ahead: &'static [u8],
    inner: S,
}

impl<S> Replayed<S> {
    pub(super) const fn new(ahead: &'static [u8], inner: S) -> Self {
        Self { ahead, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let (now, later) = self.ahead.split_at(self.ahead.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.ahead = later;
        Poll::Ready(Ok(()))
    }
}

/// Both wrap reading alone; what is written passes through.
macro_rules! writes_through {
    ($wrapper:ident) => {
        impl<S: AsyncWrite + Unpin> AsyncWrite for $wrapper<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_shutdown(cx)
            }
        }
    };
}

writes_through!(Metered);
writes_through!(Replayed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_what_comes_faster_than_its_pace_waits_and_no_longer() {
        let bytes_per_second = NonZeroU32::new(1_000).unwrap();
        let mut pace = Pace { bytes_per_second, full_at: Duration::ZERO, waits: None };
        let mut wait =
            |bytes, millis| pace.after(bytes, Duration::from_millis(millis)).map(|wait| wait.as_millis());
        assert_eq!(wait(400, 0), None);
        assert_eq!(wait(600, 0), None, "as much at once as comes in a second");
        assert_eq!(wait(100, 0), Some(100));
        assert_eq!(wait(500, 100), Some(500));
        assert_eq!(wait(1, 700), None);
        // Whoever has sent nothing for long may send no more at once for that.
        assert_eq!(wait(1_000, 90_000), None);
        assert_eq!(wait(1, 90_000), Some(1));
    }
}
