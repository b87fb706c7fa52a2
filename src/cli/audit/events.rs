//! `brevet audit list` and `brevet audit tail`: the records of a running broker, as an auditor may see them.

use std::fmt;
use std::str::FromStr;

use brevet_api::v1;
use brevet_core::fact::Fact;
use brevet_core::id::TaskId;
use brevet_core::spiffe_id::SpiffeId;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::cli::Exit;
use crate::cli::connection::{Client, Session};
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format, Row};
use crate::cli::wire::{self, NotUnderstood};

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    client: Client,
    /// Only records behind this revision.
    #[arg(long, value_name = "REVISION", default_value = "0", hide_default_value = true)]
    after_revision: u64,
    /// Only records of the tree of this task, tasks/{id}.
    #[arg(long, value_name = "TASK", value_parser = TaskId::from_name)]
    task: Option<TaskId>,
    /// Only records that answer the caller with this SPIFFE ID.
    #[arg(long, value_name = "SPIFFEID")]
    caller: Option<SpiffeId>,
    /// Only facts of this kind.
    #[arg(id = "type", long = "type", value_name = "KIND", value_parser = PossibleValuesParser::new(Fact::KINDS))]
    kind: Option<String>,
    /// At most so many records.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    #[command(flatten)]
    client: Client,
    /// Begin with the first record, and not with the next.
    #[arg(long)]
    from_start: bool,
    /// Go on behind the record with this cursor.
    #[arg(long, value_name = "CURSOR", conflicts_with = "from_start")]
    cursor: Option<Cursor>,
    /// End after so many records.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

/// A place in one life of the journal, `{incarnation}:{revision}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
struct Cursor {
    incarnation: u64,
    revision: u64,
}

#[derive(Debug, Clone, Copy, Error)]
#[error("expected {{incarnation}}:{{revision}}, as a record's cursor says")]
struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (incarnation, revision) = text.split_once(':').ok_or(InvalidCursor)?;
        let number = |text: &str| text.parse().map_err(|_| InvalidCursor);
        Ok(Self { incarnation: number(incarnation)?, revision: number(revision)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.incarnation, self.revision)
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl List {
    pub(super) fn run(&self) -> Exit {
        self.client.run(async |session| self.list(session).await)
    }

    async fn list(&self, session: Session) -> Result<(), Failure> {
        let mut request = v1::ListEventsRequest {
            after_revision: self.after_revision,
            task: self.task.map(|task| task.name()).unwrap_or_default(),
            caller: self.caller.as_ref().map(ToString::to_string).unwrap_or_default(),
            r#type: self.kind.clone().unwrap_or_default(),
            ..v1::ListEventsRequest::default()
        };
        let mut page = session.broker.audit().list_events(request.clone()).await?.into_inner();
        // One document takes all of them; what goes by lines is printed as it comes.
        let mut document = Vec::new();
        let by_lines = session.output != Format::Json;
        if by_lines {
            output::head::<Event>(session.output)?;
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        loop {
            for event in page.events {
                if left == 0 {
                    break;
                }
                left -= 1;
                let event = Event::try_from(event)?;
                if by_lines { output::line(session.output, &event)? } else { document.push(event) }
            }
            if page.next_page_token.is_empty() || left == 0 {
                break;
            }
            request.page_token = page.next_page_token;
            page = session.broker.audit().list_events(request.clone()).await?.into_inner();
        }
        if by_lines { Ok(()) } else { output::many(session.output, &document) }
    }
}

impl Tail {
    pub(super) fn run(&self) -> Exit {
        self.client.run(async |session| self.tail(session).await)
    }

    async fn tail(&self, session: Session) -> Result<(), Failure> {
        let cursor = match self.cursor {
            None if self.from_start => Some(start(&session).await?),
            given => given,
        };
        let cursor = cursor.map(|Cursor { incarnation, revision }| v1::Cursor { incarnation, revision });
        let request = v1::TailEventsRequest { cursor };
        let mut events = session.broker.audit().tail_events(request).await?.into_inner();
        output::head::<Event>(session.output)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(event) = events.message().await?
        {
            left -= 1;
            output::line(session.output, &Event::try_from(event)?)?;
        }
        Ok(())
    }
}

/// The place before the first record.
async fn start(session: &Session) -> Result<Cursor, Failure> {
    let request = v1::ListEventsRequest { page_size: 1, ..v1::ListEventsRequest::default() };
    let page = session.broker.audit().list_events(request).await?.into_inner();
    let first = page.events.into_iter().next().ok_or(NotUnderstood)?;
    Ok(Cursor { revision: 0, ..Event::try_from(first)?.cursor })
}

#[derive(Serialize)]
struct Event {
    revision: u64,
    cursor: Cursor,
    time: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tree: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    caller: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    /// For a reader of lines: the record has it too.
    #[serde(skip)]
    reason: String,
    /// The hash of the chain, in hexadecimal.
    chain: String,
    /// As it is stored and hashed, byte for byte.
    record: Box<RawValue>,
}

/// What is read of a record: in which life of the journal it was written, and why something was done or denied.
#[derive(Deserialize)]
struct Record {
    envelope: Envelope,
    fact: Why,
}

#[derive(Deserialize)]
struct Why {
    #[serde(default)]
    reason: String,
    cause: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    incarnation: u64,
}

impl TryFrom<v1::Event> for Event {
    type Error = NotUnderstood;
    fn try_from(wire: v1::Event) -> Result<Self, NotUnderstood> {
        let record: Record = serde_json::from_str(&wire.record).map_err(|_| NotUnderstood)?;
        let incarnation = record.envelope.incarnation;
        let Why { reason, cause } = record.fact;
        Ok(Self {
            reason: cause.map_or_else(|| reason.clone(), |cause| format!("{reason}: {cause}")),
            revision: wire.revision,
            cursor: Cursor { incarnation, revision: wire.revision },
            time: wire::time(wire.time.as_ref()),
            kind: wire.r#type,
            tenant: wire.tenant,
            tree: wire.tree,
            caller: wire.caller,
            request_id: wire.request_id,
            chain: wire.chain.iter().map(|byte| format!("{byte:02x}")).collect(),
            record: RawValue::from_string(wire.record).map_err(|_| NotUnderstood)?,
        })
    }
}

impl Row for Event {
    const COLUMNS: &'static [&'static str] =
        &["CURSOR", "TIME", "TYPE", "REASON", "CALLER", "TREE", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let Self { cursor, time, kind, reason, caller, tree, request_id, .. } = self;
        let [time, kind, reason, caller, tree, request_id] =
            [time, kind, reason, caller, tree, request_id].map(String::clone);
        vec![cursor.to_string(), time, kind, reason, caller, tree, request_id]
    }

    fn name(&self) -> Option<&str> {
        None
    }
}
