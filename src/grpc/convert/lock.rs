//! Locks on the wire.

use brevet_api::v1;
use brevet_core::lock::Swept;

use super::{Parsed, lifetime, page_size, request_id, selector, timestamp, wire_selector};
use crate::broker::{LockAsk, LockFilter, LockView, Refusal};

/// The longest message to a stopped party, in bytes: the API says so to clients, and records have it for ever.
const MESSAGE_BYTES_MAX: usize = 256;

pub(in crate::grpc) fn lock_ask(request: v1::CreateLockRequest) -> Parsed<LockAsk> {
    let v1::CreateLockRequest { request_id: name, selector: wire, message, lifetime: life } = request;
    Ok(LockAsk {
        request_id: request_id(&name)?,
        selector: selector(wire.ok_or_else(|| Refusal::invalid("selector", "is required"))?)?,
        message: printable(message)?,
        lifetime: lifetime(life)?,
    })
}

/// It is shown on terminals and written into logs, whatever they are.
fn printable(text: String) -> Parsed<String> {
    if text.len() > MESSAGE_BYTES_MAX || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Refusal::invalid("message", "must be printable ASCII, at most 256 bytes"));
    }
    Ok(text)
}

pub(in crate::grpc) fn lock_filter(
    request: &v1::ListLocksRequest,
    page_size_max: usize,
) -> Parsed<LockFilter> {
    let after = match request.page_token.as_str() {
        "" => None,
        name => Some(super::lock_name("page_token", name)?),
    };
    Ok(LockFilter { after, limit: page_size(request.page_size, page_size_max)? })
}

pub(in crate::grpc) fn page(views: &[LockView], limit: usize) -> v1::ListLocksResponse {
    let (locks, next_page_token) =
        super::page(views.iter().map(lock), limit, |lock: &v1::Lock| lock.name.clone());
    v1::ListLocksResponse { locks, next_page_token }
}

pub(in crate::grpc) fn lock(view: &LockView) -> v1::Lock {
    let LockView { record, in_force } = view;
    let Swept { tasks, leases } = record.swept.unwrap_or(Swept { tasks: 0, leases: 0 });
    v1::Lock {
        name: record.lock.id.name(),
        tenant: record.lock.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
        selector: Some(wire_selector(&record.lock.selector)),
        message: record.lock.message.clone(),
        create_time: Some(timestamp(record.created_at)),
        end_time: record.lock.until.map(timestamp),
        in_force: *in_force,
        swept: record.swept.is_some(),
        tasks_ended: tasks,
        leases_ended: leases,
        revision: record.created.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_any_terminal_may_show() {
        for good in ["", "stand by: see ~runbook 7 <ops@example.org>", &"x".repeat(256)] {
            assert!(printable(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["a\nb", "\u{1b}[31m", "caf\u{e9}", "\u{7f}", "\t", &"x".repeat(257)] {
            assert!(printable(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
