//! `brevet lock`: pulls the emergency stop, looks at it and lifts it.

use std::path::PathBuf;

use brevet_api::v1;
use brevet_core::id::LockId;
use brevet_core::name::RequestId;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::connection::{Client, Session};
use super::exit::Failure;
use super::output::{self, Row};
use super::selector::{self, SELECTION, SelectorOptions};
use super::wire::{self, NotUnderstood};
use super::{Exit, request_id};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The broker's local root socket: for the daemon's own user and root, with no certificate, and bound by no lock.
    #[arg(long, global = true, value_name = "PATH", env = "BREVET_ROOT_SOCKET")]
    root_socket: Option<PathBuf>,
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pull the emergency stop: what it selects is dead for ever, and nothing of it is issued until it is lifted.
    #[command(mut_group(SELECTION, |group| group.required(true)))]
    Create(Box<Create>),
    /// Read a lock.
    Get {
        /// Its resource name, locks/{id}.
        #[arg(value_parser = LockId::from_name)]
        lock: LockId,
    },
    /// List the locks that are kept.
    List,
    /// Lift a lock: new issue is permitted, and what it has killed stays dead.
    Lift {
        /// Its resource name, locks/{id}.
        #[arg(value_parser = LockId::from_name)]
        lock: LockId,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What whoever is stopped is told: printable ASCII, at most 256 bytes.
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Seconds after which new issue is permitted again; without it, not until it is lifted.
    #[arg(long, value_name = "SECONDS")]
    lifetime_seconds: Option<u64>,
    /// The name by which a repetition is recognised; a random one if not given.
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    request_id: Option<RequestId>,
    #[command(flatten)]
    selector: SelectorOptions,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { root_socket, client, command } = arguments;
    client.run_at(root_socket.as_deref(), async |session| match command {
        Command::Create(create) => create.run(session).await,
        Command::Get { lock } => {
            let request = v1::GetLockRequest { name: lock.name() };
            let lock = session.broker.locks().get_lock(request).await?.into_inner();
            output::one(session.output, &Lock::try_from(lock)?)
        }
        Command::List => list(session).await,
        Command::Lift { lock } => {
            let request = v1::LiftLockRequest { name: lock.name() };
            let lock = session.broker.locks().lift_lock(request).await?.into_inner();
            output::one(session.output, &Lock::try_from(lock)?)
        }
    })
}

impl Create {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let request_id = self.request_id.clone().map_or_else(request_id, Ok)?;
        let request = v1::CreateLockRequest {
            request_id: request_id.to_string(),
            selector: Some(self.selector.read()?),
            message: self.message,
            lifetime: self.lifetime_seconds.map(wire::seconds),
        };
        let created = async {
            let lock = session.broker.locks().create_lock(request).await?.into_inner();
            Ok(Created { request_id: request_id.to_string(), lock: Lock::try_from(lock)? })
        };
        // With the request id, a repetition gets the same lock.
        let created =
            created.await.map_err(|failure: Failure| failure.about(&format!("request {request_id}")))?;
        output::one(session.output, &created)
    }
}

async fn list(session: Session) -> Result<(), Failure> {
    let mut request = v1::ListLocksRequest::default();
    let mut locks = Vec::new();
    loop {
        let page = session.broker.locks().list_locks(request.clone()).await?.into_inner();
        for lock in page.locks {
            locks.push(Lock::try_from(lock)?);
        }
        if page.next_page_token.is_empty() {
            return output::many(session.output, &locks);
        }
        request.page_token = page.next_page_token;
    }
}

#[derive(Serialize)]
struct Lock {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
    selector: serde_json::Value,
    #[serde(skip)]
    stops: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    create_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    end_time: String,
    in_force: bool,
    swept: bool,
    tasks_ended: u64,
    leases_ended: u64,
    revision: u64,
}

impl TryFrom<v1::Lock> for Lock {
    type Error = NotUnderstood;
    fn try_from(wire: v1::Lock) -> Result<Self, NotUnderstood> {
        let (kind, what) = selector::words(wire.selector)?;
        Ok(Self {
            selector: selector::member(kind, &what),
            stops: format!("{kind} {what}").trim_end().to_owned(),
            create_time: wire::time(wire.create_time.as_ref()),
            end_time: wire::time(wire.end_time.as_ref()),
            name: wire.name,
            tenant: wire.tenant,
            message: wire.message,
            in_force: wire.in_force,
            swept: wire.swept,
            tasks_ended: wire.tasks_ended,
            leases_ended: wire.leases_ended,
            revision: wire.revision,
        })
    }
}

impl Row for Lock {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STOPS", "TENANT", "IN FORCE", "CREATED", "ENDS", "TASKS", "LEASES", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        // The counts are known once everything that it has killed is recorded.
        let counted = |count: u64| if self.swept { count.to_string() } else { String::new() };
        vec![
            self.name.clone(),
            self.stops.clone(),
            self.tenant.clone(),
            if self.in_force { "yes" } else { "no" }.to_owned(),
            self.create_time.clone(),
            self.end_time.clone(),
            counted(self.tasks_ended),
            counted(self.leases_ended),
            self.message.clone(),
        ]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

#[derive(Serialize)]
struct Created {
    request_id: String,
    lock: Lock,
}

impl Row for Created {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STOPS", "TENANT", "CREATED", "ENDS", "MESSAGE", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let Lock { name, stops, tenant, create_time, end_time, message, .. } = &self.lock;
        [name, stops, tenant, create_time, end_time, message, &self.request_id].map(String::clone).into()
    }

    fn name(&self) -> Option<&str> {
        Some(&self.lock.name)
    }
}
