//! Answers that their clients have yet to take.
//!
//! HTTP/2 lets a client ask and then take nothing: it grants no window, answers pings, and what it asked for waits in
//! memory for as long as the connection lasts. So each connection counts its untaken answers in two generations. When
//! time turns a generation over and the one before it is not empty, an answer has waited for a whole one at least.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use brevet_core::sabotage;
use hyper::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Among the extensions of an answer: it goes on for as long as there is something to tell, and so is not late because it
/// has no end. What is told must still be taken in time.
#[derive(Debug, Clone, Copy)]
pub struct Endless;

/// The answers of one connection. Each of its requests carries a clone.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Untaken>);

#[derive(Debug, Default)]
struct Untaken {
    generation: AtomicUsize,
    /// Of the current generation and the one before, in turns.
    counts: [AtomicUsize; 2],
    cut: Notify,
}

impl Answers {
    /// The connection is no use any more: it is cut.
    pub fn cut(&self) {
        self.0.cut.notify_one();
    }

    /// Completes when an answer was not taken within `max`, and within twice that at the latest, or when the connection
    /// is to be cut.
    pub(super) async fn left_untaken(&self, max: Duration) {
        loop {
            tokio::select! {
                () = sleep(max) => {}
                () = self.0.cut.notified() => return,
            }
            if !self.turn_over() {
                return;
            }
        }
    }

    /// Begins a new generation, if all of the one before the current was taken.
    fn turn_over(&self) -> bool {
        let next = self.0.generation.load(Ordering::Relaxed).wrapping_add(1);
        let is_taken = self.0.counts.get(next % 2).is_none_or(|count| count.load(Ordering::Relaxed) == 0);
        if is_taken {
            self.0.generation.store(next, Ordering::Relaxed);
        }
        is_taken || sabotage::on("answers_wait_for_ever")
    }

    /// The same response, whose taking is watched.
    pub(super) fn watched(&self, response: Response<Body>) -> Response<Watched> {
        let whole = response.extensions().get::<Endless>().is_none().then(|| self.one_more());
        response.map(|body| Watched { body, answers: self.clone(), _whole: whole })
    }

    fn one_more(&self) -> One {
        let generation = self.0.generation.load(Ordering::Relaxed);
        if let Some(count) = self.0.counts.get(generation % 2) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        One { answers: Arc::clone(&self.0), generation }
    }
}

/// One answer, or a part of one, that is not taken yet.
#[derive(Debug)]
struct One {
    answers: Arc<Untaken>,
    generation: usize,
}

impl Drop for One {
    fn drop(&mut self) {
        if let Some(count) = self.answers.counts.get(self.generation % 2) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The body of an answer. HTTP/2 asks for a part when the client has room for some of it, and drops the part when the
/// last of it was written.
#[derive(Debug)]
pub(super) struct Watched {
    body: Body,
    answers: Answers,
    _whole: Option<One>,
}

/// A part of an answer, which is untaken until it is dropped.
struct Part {
    bytes: Bytes,
    _one: One,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| Bytes::from_owner(Part { bytes, _one: self.answers.one_more() }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &'static str) -> Response<Body> {
        Response::new(Body::from(text))
    }

    #[test]
    fn r1_an_answer_that_is_not_taken_in_time_ends_its_connection() {
        let answers = Answers::default();
        assert!((0..9).all(|_| answers.turn_over()), "there is none");
        drop(answers.watched(answer("taken")));
        assert!((0..9).all(|_| answers.turn_over()), "it was taken");
        let untaken = answers.watched(answer("untaken"));
        assert!(answers.turn_over(), "it has waited for less than a generation");
        assert!(!answers.turn_over());
        drop(untaken);
        assert!(answers.turn_over());
    }

    #[tokio::test]
    async fn r1_a_part_is_untaken_until_the_last_of_it_is_written_and_a_stream_needs_no_end() {
        let answers = Answers::default();
        let mut response = answer("part");
        response.extensions_mut().insert(Endless);
        let mut body = answers.watched(response).into_body();
        assert!((0..9).all(|_| answers.turn_over()), "there is nothing to take");
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let part = next.await.unwrap().unwrap().into_data().unwrap();
        let (head, rest) = (part.slice(..1), part.slice(1..));
        drop((part, head));
        assert!(answers.turn_over() && !answers.turn_over(), "the rest is not taken");
        drop(rest);
        assert!(answers.turn_over());
        answers.cut();
        answers.left_untaken(Duration::MAX).await;
    }
}
