//! The audit log as auditors see it: the records of their tenant and those that belong to none, byte for byte as the
//! journal has them.

use std::fmt;
use std::sync::Arc;

use brevet_core::fact::Envelope;
use brevet_core::id::RootTaskId;
use brevet_core::name::TenantName;
use brevet_core::proof::Caller;
use brevet_core::record;
use brevet_core::request::OperatorCall;
use brevet_core::revision::Revision;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use brevet_journal::{Cursor, ReadError, Record, Tail, TailError};

use super::{Broker, Kind, Refusal};
use crate::shares::Share;

/// Records fetched at once: the journal's writer serves nobody else meanwhile.
const FETCH: usize = 256;

/// A record with what it says of itself.
#[derive(Debug, Clone)]
pub struct Event {
    /// The record.
    pub record: Arc<Record>,
    /// Who, when and where.
    pub envelope: Envelope,
    /// The kind of fact.
    pub kind: &'static str,
}

/// Which records are listed.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Behind this revision.
    pub after: Revision,
    /// Of this tree only.
    pub tree: Option<RootTaskId>,
    /// In answer to this caller only.
    pub caller: Option<SpiffeId>,
    /// Of this kind only.
    pub kind: Option<&'static str>,
    /// At most so many.
    pub limit: usize,
    /// At most so many bytes of records, but for the first.
    pub bytes_max: usize,
}

/// What was found.
#[derive(Debug)]
pub struct EventPage {
    /// The records.
    pub events: Vec<Event>,
    /// Everything up to here was looked at; none if that is everything there is.
    pub next: Option<Revision>,
}

/// What an auditor may see, and under what that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditView {
    tenant: TenantName,
    /// The control revision of the decision.
    control: Revision,
}

impl AuditView {
    fn shows(&self, envelope: &Envelope) -> bool {
        envelope.tenant.as_ref().is_none_or(|tenant| *tenant == self.tenant)
            || sabotage::on("audit_for_anyone")
    }
}

impl Broker {
    /// What a caller may see of the audit log.
    ///
    /// # Errors
    /// [`Refusal`] if that is nothing.
    pub fn audit_view(&self, caller: &Caller) -> Result<AuditView, Refusal> {
        let in_force = self.table.in_force();
        let (who, _permit) =
            self.operate(caller, OperatorCall::ListEvents, None, &in_force, self.clock.now())?;
        Ok(AuditView { tenant: who.tenant, control: in_force.control.revision() })
    }

    /// Lists records in the order of their revisions.
    ///
    /// # Errors
    /// [`Refusal`] if the caller may not see them, or the journal does not give them.
    pub async fn list_events(&self, caller: &Caller, filter: EventFilter) -> Result<EventPage, Refusal> {
        // 1. Who asks, and for whose records.
        let view = self.audit_view(caller)?;
        let journal = self.table.journal();
        journal.durable(view.control).await.map_err(|_| Refusal::unavailable("journal_sealed"))?;

        // 2. What is durable now is looked at in order, a bounded part of it at once, so that a filter that matches
        //    nothing keeps nobody from the journal.
        let end = journal.progress().durable();
        let turn = self.list_turn(caller, &view.tenant).await?;
        let mut page = EventPage { events: Vec::new(), next: None };
        let (mut seen, mut bytes) = (filter.after, 0_usize);
        let mut left = usize::try_from(self.limits.events_looked_at_max.get()).unwrap_or(usize::MAX);
        while seen < end && left > 0 {
            let records = journal.read(seen, left.min(FETCH)).await?;
            left = left.saturating_sub(records.len().max(1));
            // Reading many is work that no thread which serves calls should do.
            let events: Vec<Event> = tokio::task::block_in_place(|| {
                records.into_iter().map(Event::read).collect::<Result<_, _>>()
            })?;
            for event in events {
                let record = Arc::clone(&event.record);
                if view.shows(&event.envelope) && filter.matches(&event) {
                    // 3. A page fits an answer; what does not fit any more begins the next one.
                    bytes = bytes.saturating_add(record.body.len());
                    let is_full = page.events.len() >= filter.limit || bytes > filter.bytes_max;
                    if is_full && !page.events.is_empty() {
                        page.next = Some(seen);
                        return Ok(page);
                    }
                    page.events.push(event);
                }
                seen = record.revision;
            }
        }
        drop(turn);
        page.next = (seen < end).then_some(seen);
        Ok(page)
    }

    /// Follows the log behind a cursor, or from now on. The shares are to be held for as long as anything of it may still be
    /// read.
    ///
    /// # Errors
    /// [`Refusal`] if the caller may not see it or has too many streams, or the cursor is not one of this log.
    pub fn tail_events(
        &self,
        caller: &Caller,
        cursor: Option<Cursor>,
    ) -> Result<(EventTail, (Share, Share<TenantName>)), Refusal> {
        let view = self.audit_view(caller)?;
        let journal = Arc::clone(self.table.journal());
        let head = journal.head();
        let now = Cursor { incarnation: head.incarnation, revision: head.durable };
        let tail = Tail::open(journal, cursor.unwrap_or(now))?;
        let shares =
            (self.audit_streams.take(caller.spiffe_id())?, self.audit_streams_of_tenants.take(&view.tenant)?);
        Ok((EventTail { tail, view, next: None }, shares))
    }
}

/// Follows what one auditor may see.
#[derive(Debug)]
pub struct EventTail {
    tail: Tail,
    view: AuditView,
    next: Option<Event>,
}

impl EventTail {
    /// The control revision by which its auditor may see it.
    #[must_use]
    pub const fn control(&self) -> Revision {
        self.view.control
    }

    /// Looks again whether the caller may see it, by what is in force now.
    ///
    /// # Errors
    /// [`Refusal`] if it may not, or is of another tenant now: what it was not shown cannot be made up for in the middle
    /// of a stream.
    pub fn authorise(&mut self, broker: &Broker, caller: &Caller) -> Result<(), Refusal> {
        let view = broker.audit_view(caller)?;
        if view.tenant != self.view.tenant {
            let text = "the caller is of another tenant now: begin anew";
            return Err(Refusal::new(Kind::Precondition, "tenant_changed", text));
        }
        self.view = view;
        Ok(())
    }

    /// Waits for the next record that is the auditor's to see. It is durable. May be dropped and begun again.
    ///
    /// # Errors
    /// [`Refusal`] when no further record will come.
    pub async fn ready(&mut self) -> Result<(), Refusal> {
        while self.next.is_none() {
            let event = Event::read(self.tail.next().await?)?;
            self.next = self.view.shows(&event.envelope).then_some(event);
            // Others' records may be many, and nothing is waited for between them.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// That record, once [`Self::ready`] has resolved and if the caller may still see it.
    pub const fn take(&mut self) -> Option<Event> {
        self.next.take()
    }
}

impl Event {
    fn read(record: Arc<Record>) -> Result<Self, Refusal> {
        let read = record::decode(&record.body).map_err(|_| Refusal::unavailable("record_unreadable"))?;
        let (envelope, kind) = (read.envelope, read.fact.kind());
        Ok(Self { record, envelope, kind })
    }
}

impl EventFilter {
    fn matches(&self, event: &Event) -> bool {
        self.tree.is_none_or(|tree| event.envelope.tree == Some(tree))
            && self.caller.as_ref().is_none_or(|caller| event.envelope.caller.as_ref() == Some(caller))
            && self.kind.is_none_or(|kind| event.kind == kind)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { .. } => compacted(error),
            ReadError::Damaged(_) => Self::unavailable("journal_damaged"),
            ReadError::Sealed => Self::unavailable("journal_sealed"),
        }
    }
}

impl From<TailError> for Refusal {
    fn from(error: TailError) -> Self {
        match error {
            TailError::Incarnation => Self::new(Kind::Precondition, "incarnation_changed", error.to_string()),
            TailError::Future => Self::invalid("cursor", error),
            TailError::Compacted { .. } => compacted(error),
            TailError::Damaged(_) => Self::unavailable("journal_damaged"),
            TailError::Sealed => Self::unavailable("journal_sealed"),
        }
    }
}

fn compacted(error: impl fmt::Display) -> Refusal {
    Refusal::new(Kind::Precondition, "compacted", error.to_string())
}
