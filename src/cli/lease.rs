//! `brevet lease`: shows operators what has been issued in their tenant, and ends it.

use brevet_api::v1;
use brevet_core::fact::ReasonCode;
use brevet_core::id::LeaseId;
use brevet_core::scope::Scope;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Exit;
use super::connection::{Client, Session};
use super::exit::Failure;
use super::output::{self, Row};
use super::selector::{SELECTION, SelectorOptions};
use super::wire::{self, NotUnderstood};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a lease.
    Get {
        /// Its resource name, tasks/{id}/leases/{id}.
        lease: LeaseId,
    },
    /// List leases.
    List(Box<List>),
    /// End one lease while its task goes on.
    Revoke {
        /// Its resource name, tasks/{id}/leases/{id}.
        lease: LeaseId,
        /// A code for why.
        #[arg(long, value_name = "CODE", value_parser = ReasonCode::parse)]
        reason: Option<ReasonCode>,
    },
    /// End every live lease of a selection while the tasks go on; the agents may ask anew.
    #[command(mut_group(SELECTION, |group| group.required(true)))]
    RevokeMatching(Box<RevokeMatching>),
}

#[derive(Debug, Args)]
struct List {
    /// Only those in this state.
    #[arg(long, value_parser = wire::LEASE_STATES.parser())]
    state: Option<v1::lease::State>,
    #[command(flatten)]
    selector: Option<SelectorOptions>,
}

#[derive(Debug, Args)]
struct RevokeMatching {
    /// A code for why.
    #[arg(long, value_name = "CODE", value_parser = ReasonCode::parse)]
    reason: Option<ReasonCode>,
    /// Only show what would be ended.
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    selector: SelectorOptions,
}

fn code(reason: Option<&ReasonCode>) -> String {
    reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default()
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Arguments { client, command } = arguments;
    client.run(async |session| match command {
        Command::Get { lease } => {
            let request = v1::GetLeaseRequest { name: lease.to_string() };
            let lease = session.broker.leases().get_lease(request).await?.into_inner();
            output::one(session.output, &Lease::try_from(lease)?)
        }
        Command::List(list) => list.run(session).await,
        Command::Revoke { lease, reason } => {
            let request = v1::RevokeLeaseRequest { name: lease.to_string(), reason: code(reason.as_ref()) };
            let answer = session.broker.leases().revoke_lease(request).await?.into_inner();
            output::one(session.output, &Lease::try_from(answer.lease.ok_or(NotUnderstood)?)?)
        }
        Command::RevokeMatching(revoke) => revoke.run(session).await,
    })
}

impl List {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let mut request = v1::ListLeasesRequest {
            page_size: 0,
            page_token: String::new(),
            state: self.state.unwrap_or_default().into(),
            selector: self.selector.map(|selector| selector.read()).transpose()?,
        };
        let mut leases = Vec::new();
        loop {
            let page = session.broker.leases().list_leases(request.clone()).await?.into_inner();
            for lease in page.leases {
                leases.push(Lease::try_from(lease)?);
            }
            if page.next_page_token.is_empty() {
                return output::many(session.output, &leases);
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl RevokeMatching {
    async fn run(self, session: Session) -> Result<(), Failure> {
        let request = v1::RevokeLeasesRequest {
            selector: Some(self.selector.read()?),
            reason: code(self.reason.as_ref()),
            validate_only: self.preview,
        };
        let answer = session.broker.leases().revoke_leases(request).await?.into_inner();
        let v1::RevokeLeasesResponse { leases_ended, leases, revision } = answer;
        output::one(session.output, &Revoked { preview: self.preview, leases_ended, leases, revision })
    }
}

#[derive(Serialize)]
struct Lease {
    name: String,
    agent: String,
    profile: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    audience: String,
    scope: Scope,
    holder_key_thumbprint: String,
    issue_time: String,
    expire_time: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    end_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    end_reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    renews: String,
    key_id: String,
    policy: String,
    issue_revision: u64,
    revision: u64,
}

impl TryFrom<v1::Lease> for Lease {
    type Error = NotUnderstood;
    fn try_from(wire: v1::Lease) -> Result<Self, NotUnderstood> {
        Ok(Self {
            profile: wire::PROFILES.word(wire.profile).ok_or(NotUnderstood)?,
            scope: wire::scope(wire.scope)?,
            issue_time: wire::time(wire.issue_time.as_ref()),
            expire_time: wire::time(wire.expire_time.as_ref()),
            state: wire::LEASE_STATES.word(wire.state).ok_or(NotUnderstood)?,
            end_time: wire::time(wire.end_time.as_ref()),
            name: wire.name,
            agent: wire.agent,
            audience: wire.audience,
            holder_key_thumbprint: wire.holder_key_thumbprint,
            end_reason: wire.end_reason,
            renews: wire.renews,
            key_id: wire.key_id,
            policy: wire.policy,
            issue_revision: wire.issue_revision,
            revision: wire.revision,
        })
    }
}

impl Row for Lease {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "AGENT", "PROFILE", "AUDIENCE", "ISSUED", "EXPIRES", "ENDED", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.to_owned(),
            self.agent.clone(),
            self.profile.to_owned(),
            self.audience.clone(),
            self.issue_time.clone(),
            self.expire_time.clone(),
            self.end_time.clone(),
            self.end_reason.clone(),
        ]
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

#[derive(Serialize)]
struct Revoked {
    /// Whether nothing was ended, and this is only what would be.
    preview: bool,
    leases_ended: u64,
    /// The first of them.
    leases: Vec<String>,
    revision: u64,
}

impl Row for Revoked {
    const COLUMNS: &'static [&'static str] = &["LEASES", "ENDED", "REVISION"];

    fn cells(&self) -> Vec<String> {
        let ended = if self.preview { "no, a preview" } else { "yes" };
        vec![self.leases_ended.to_string(), ended.to_owned(), self.revision.to_string()]
    }

    fn name(&self) -> Option<&str> {
        None
    }
}
