//! The bodies of requests: taken as a whole before anything is done for them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use axum::body::{Body, Bytes, HttpBody};

use crate::shares::Full;

/// Why a body is not here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotWhole {
    /// Its caller has gone.
    Gone,
    /// As many are waited for as may be.
    Full(Full),
    /// It is longer than it may be.
    TooLarge,
}

/// The body of a request. When a part of it has come, the rest is waited for if `wait` says that it may be; what that yields
/// is held meanwhile.
pub(super) async fn whole<W>(
    body: &mut Body,
    bytes_max: usize,
    mut wait: impl FnMut() -> Result<W, Full>,
) -> Result<Bytes, NotWhole> {
    let (mut first, mut all) = (Bytes::new(), Vec::new());
    let mut waiting = None;
    poll_fn(|context| {
        while let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            let Some(frame) = frame else { return Poll::Ready(Ok(())) };
            let Ok(frame) = frame else { return Poll::Ready(Err(NotWhole::Gone)) };
            let Ok(data) = frame.into_data() else { continue };
            // Nearly always it comes in one piece, which is not copied.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
            if first.len().max(all.len()) > bytes_max {
                return Poll::Ready(Err(NotWhole::TooLarge));
            }
        }
        if waiting.is_none() && !(first.is_empty() && all.is_empty()) {
            match wait() {
                Ok(share) => waiting = Some(share),
                Err(full) => return Poll::Ready(Err(NotWhole::Full(full))),
            }
        }
        Poll::Pending
    })
    .await?;
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Takes a body and keeps nothing of it, up to its end or until it is too large.
pub(super) async fn pass_over(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio_stream::StreamExt;

    use super::*;
    use crate::shares::{ShareLimits, Shares};

    /// A body of these parts that never ends.
    fn endless(parts: &'static [&'static str]) -> Body {
        let parts = tokio_stream::iter(parts).map(|part| Ok::<_, Infallible>(Bytes::from(*part)));
        Body::from_stream(parts.chain(tokio_stream::pending()))
    }

    #[tokio::test]
    async fn r1_what_waits_for_its_end_is_counted_and_given_back() {
        let limits = ShareLimits { what: "bodies", all: None, per_holder: ("own", 1) };
        let (shares, caller) = (Shares::new(limits), "a");
        let wait = || shares.take(&caller);
        let parts = tokio_stream::iter(["ab", "", "cd"]).map(|part| Ok::<_, Infallible>(Bytes::from(part)));
        assert_eq!(whole(&mut Body::from_stream(parts), 4, wait).await, Ok(Bytes::from("abcd")));
        assert!(shares.is_empty());
        {
            let mut body = endless(&["a", "b"]);
            let mut first = std::pin::pin!(whole(&mut body, 9, wait));
            assert!(poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending())).await);
            assert_eq!(shares.len(), 1, "once for all of its parts");
            let second = whole(&mut endless(&["a"]), 9, wait).await;
            assert!(matches!(second, Err(NotWhole::Full(Full { limit: "own", .. }))), "{second:?}");
            // Of what nothing has come yet nothing is kept here.
            let mut body = endless(&[]);
            let mut third = std::pin::pin!(whole(&mut body, 9, wait));
            assert!(poll_fn(|context| Poll::Ready(third.as_mut().poll(context).is_pending())).await);
        }
        assert!(shares.is_empty());
        assert_eq!(whole(&mut endless(&["abc", "def"]), 4, wait).await, Err(NotWhole::TooLarge));
    }
}
