//! Streams of revocations on the wire.

use brevet_api::v1;
use brevet_api::v1::watch_revocations_request::{Begin, Kind as Asked};
use brevet_api::v1::watch_revocations_response::Kind as Answer;
use brevet_core::bookmark::{Bookmark, Nonce};
use brevet_core::name::AudienceName;
use brevet_core::notice::{Ended, Endings, ToldEnding};
use brevet_core::revision::{Cursor, Incarnation, Revision};

use super::{Parsed, timestamp};
use crate::broker::{Refusal, Told, WatchAsk};

/// The first message of a stream.
pub(in crate::grpc) fn begin(first: Option<v1::WatchRevocationsRequest>) -> Parsed<WatchAsk> {
    let Some(Asked::Begin(Begin { audiences, cursor })) = first.and_then(|first| first.kind) else {
        return Err(Refusal::invalid("begin", "must be the first message"));
    };
    let audiences = audiences
        .iter()
        .map(|name| AudienceName::parse(name).map_err(|error| Refusal::invalid("begin.audiences", error)))
        .collect::<Parsed<_>>()?;
    let cursor = cursor.map(|cursor| Cursor {
        incarnation: Incarnation(cursor.incarnation),
        revision: Revision(cursor.revision),
    });
    Ok(WatchAsk { audiences, cursor })
}

/// Every other message.
pub(in crate::grpc) fn nonce(message: v1::WatchRevocationsRequest) -> Parsed<Nonce> {
    match message.kind {
        Some(Asked::Nonce(bytes)) => {
            Nonce::new(&bytes).ok_or_else(|| Refusal::invalid("nonce", "must have 16 to 32 bytes"))
        }
        Some(Asked::Begin(_)) => Err(Refusal::invalid("begin", "must be the first message alone")),
        None => Err(Refusal::invalid("kind", "is required")),
    }
}

pub(in crate::grpc) fn told(told: Told) -> v1::WatchRevocationsResponse {
    let answer = match told {
        Told::Endings(told) => Answer::Endings(endings(told)),
        Told::Bookmark(told) => Answer::Bookmark(bookmark(*told)),
    };
    v1::WatchRevocationsResponse { kind: Some(answer) }
}

fn endings(endings: Endings) -> v1::Endings {
    let ending = |ending: ToldEnding| v1::endings::Ending {
        ended: Some(match ending.ended {
            Ended::Task(task) => v1::endings::ending::Ended::Task(task.name()),
            Ended::Lease(lease) => v1::endings::ending::Ended::Lease(lease.to_string()),
        }),
        reason: ending.reason.as_str().to_owned(),
        until: Some(timestamp(ending.until)),
    };
    let Endings { revision, endings, more } = endings;
    v1::Endings { revision: revision.0, endings: endings.into_iter().map(ending).collect(), more }
}

fn bookmark(bookmark: Bookmark) -> v1::Bookmark {
    v1::Bookmark {
        cursor: Some(v1::Cursor {
            incarnation: bookmark.cursor.incarnation.0,
            revision: bookmark.cursor.revision.0,
        }),
        chain: bookmark.chain.to_vec(),
        judge_time: Some(timestamp(bookmark.judge_time)),
        nonce: bookmark.nonce.as_bytes().to_vec(),
        nonce_index: bookmark.nonce_index,
        nonce_count: bookmark.nonce_count,
        nonce_path: bookmark.nonce_path.iter().map(|hash| hash.to_vec()).collect(),
        key_id: bookmark.key_id.as_str().to_owned(),
        signature: bookmark.signature.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use brevet_core::fact::ReasonCode;
    use brevet_core::id::{Id, LeaseId, LeaseKey, RootTaskId, TaskId};
    use brevet_core::time::Timestamp;
    use prost::Message;

    use super::*;
    use crate::broker::ENDINGS_TOLD_MAX;
    use crate::grpc::ENDING_BYTES_MAX;

    #[test]
    fn a_message_takes_as_many_endings_as_it_is_to_however_long_they_are() {
        let id = |byte| Id::from_bytes([byte; 16]);
        let task = TaskId::child_of(RootTaskId(id(255)), id(254)).unwrap();
        let ending = ToldEnding {
            ended: Ended::Lease(LeaseId { task, key: LeaseKey(id(255)) }),
            reason: ReasonCode::parse(&"r".repeat(64)).unwrap(),
            until: Timestamp::from_millis(u64::MAX),
        };
        let all =
            Endings { revision: Revision(u64::MAX), endings: vec![ending; ENDINGS_TOLD_MAX], more: true };
        let bytes_max = ENDINGS_TOLD_MAX * ENDING_BYTES_MAX;
        assert!(told(Told::Endings(all)).encoded_len() < bytes_max);
        assert!(bytes_max <= brevet_client::Settings::default().answer_bytes_max, "who watches reads it");
    }
}
