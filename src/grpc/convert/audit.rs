//! The audit log on the wire.

use brevet_api::v1;
use brevet_core::fact::Fact;
use brevet_core::id::TaskId;
use brevet_core::revision::{Incarnation, Revision};
use brevet_journal::Cursor;

use super::{Parsed, spiffe_id, task_name, timestamp};
use crate::broker::{Event, EventFilter, EventPage, Refusal};

/// The most bytes of records on one page: a page fits an answer, and so does a page of one record of any size.
const PAGE_BYTES_MAX: usize = 128 * 1024;

pub(in crate::grpc) fn event_filter(
    request: &v1::ListEventsRequest,
    page_size_max: usize,
) -> Parsed<EventFilter> {
    let page_size = usize::try_from(request.page_size)
        .map_err(|_| Refusal::invalid("page_size", "must not be negative"))?;
    let after = match request.page_token.as_str() {
        "" => request.after_revision,
        token => token.parse().map_err(|_| Refusal::invalid("page_token", "not one of this list's"))?,
    };
    Ok(EventFilter {
        after: Revision(after),
        tree: match request.task.as_str() {
            "" => None,
            name => Some(task_name("task", name)?.root()),
        },
        caller: match request.caller.as_str() {
            "" => None,
            id => Some(spiffe_id("caller", id)?),
        },
        kind: match request.r#type.as_str() {
            "" => None,
            name => {
                let known = Fact::KINDS.into_iter().find(|kind| *kind == name);
                Some(known.ok_or_else(|| Refusal::invalid("type", "not a kind of fact"))?)
            }
        },
        limit: if page_size == 0 { page_size_max } else { page_size.min(page_size_max) },
        bytes_max: PAGE_BYTES_MAX,
    })
}

pub(in crate::grpc) fn events(page: &EventPage) -> v1::ListEventsResponse {
    v1::ListEventsResponse {
        events: page.events.iter().map(event).collect(),
        next_page_token: page.next.map(|seen| seen.to_string()).unwrap_or_default(),
    }
}

pub(in crate::grpc) fn cursor(wire: v1::Cursor) -> Cursor {
    Cursor { incarnation: Incarnation(wire.incarnation), revision: Revision(wire.revision) }
}

pub(in crate::grpc) fn event(event: &Event) -> v1::Event {
    let envelope = &event.envelope;
    v1::Event {
        revision: event.record.revision.0,
        time: Some(timestamp(envelope.at.issue)),
        tenant: envelope.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
        tree: envelope.tree.map(|root| TaskId::root_of(root).name()).unwrap_or_default(),
        caller: envelope.caller.as_ref().map(ToString::to_string).unwrap_or_default(),
        request_id: envelope.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        r#type: event.kind.to_owned(),
        // It is printable ASCII, as it was when it was read.
        record: String::from_utf8_lossy(&event.record.body).into_owned(),
        chain: event.record.chain.as_bytes().to_vec(),
    }
}
