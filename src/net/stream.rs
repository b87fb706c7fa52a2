//! Two wrappers of a byte stream that the handshake needs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Fails once more bytes were read than a stranger may send, until the limit is lifted.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    /// Bytes that may still be read, or no limit.
    left: Option<usize>,
}

/// The peer sent too much before it was known.
#[derive(Debug, thiserror::Error)]
#[error("the handshake is too long")]
struct TooLong;

impl<S> Metered<S> {
    pub(super) const fn new(inner: S, limit: usize) -> Self {
        Self { inner, left: Some(limit) }
    }

    pub(super) const fn lift(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == Some(0) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TooLong)));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        self.left = self.left.map(|left| left.saturating_sub(read));
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
