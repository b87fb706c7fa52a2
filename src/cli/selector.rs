//! What an operator means to stop or to see, on the command line and in an answer.

use brevet_api::v1::{self, selector::Kind};
use brevet_core::digest::PolicyDigest;
use brevet_core::id::TaskId;
use brevet_core::name::{ActionName, AudienceName, InvalidName, KeyId};
use brevet_core::scope::{InvalidScope, ResourcePattern};
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use clap::Args;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::exit::Usage;
use super::wire::NotUnderstood;

/// The group of all of them. Where one is required, nothing is never taken for everything.
pub(super) const SELECTION: &str = "selection";

/// One of these.
#[derive(Debug, Args)]
#[group(id = SELECTION, multiple = false)]
#[command(next_help_heading = "Selection")]
pub(super) struct SelectorOptions {
    /// A task and everything delegated from it.
    #[arg(long, value_name = "TASK", value_parser = TaskId::from_name)]
    task: Option<TaskId>,
    /// Every task that this agent works on, and everything delegated from them.
    #[arg(long, value_name = "SPIFFEID")]
    agent: Option<SpiffeId>,
    /// As --agent, for every SPIFFE ID that is this one or lies below it.
    #[arg(long, value_name = "SPIFFEID")]
    path_prefix: Option<SpiffeId>,
    /// Every task on behalf of this one, and everything delegated from them.
    #[arg(long, value_name = "SPIFFEID")]
    delegator: Option<SpiffeId>,
    /// Every lease whose scope names this action.
    #[arg(long, value_name = "ACTION", value_parser = ActionName::parse)]
    tool: Option<ActionName>,
    /// Every lease whose scope overlaps these resources.
    #[arg(long, value_name = "AUDIENCE RESOURCE", value_parser = resource)]
    resource: Option<(AudienceName, ResourcePattern)>,
    /// Every lease for this audience.
    #[arg(long, value_name = "AUDIENCE", value_parser = AudienceName::parse)]
    audience: Option<AudienceName>,
    /// Every task that an agent, delegator or opener of this trust domain has a part in.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// Every lease signed with the key of this id.
    #[arg(long, value_name = "ID", value_parser = KeyId::parse, allow_hyphen_values = true)]
    key_id: Option<KeyId>,
    /// Every lease that the policies with this digest permitted.
    #[arg(long, value_name = "DIGEST", allow_hyphen_values = true)]
    policy: Option<PolicyDigest>,
    /// Everything in the tenant, or over the root socket in all of them.
    #[arg(long)]
    everything: bool,
}

impl SelectorOptions {
    /// What was said.
    pub(super) fn read(&self) -> Result<v1::Selector, Usage> {
        let resource = |(audience, resource): &(AudienceName, ResourcePattern)| {
            let (audience, resource) = (audience.to_string(), resource.to_string());
            Kind::Resource(v1::selector::Resource { audience, resource })
        };
        let kind = None
            .or_else(|| self.task.map(|it| Kind::Task(it.name())))
            .or_else(|| self.agent.as_ref().map(|it| Kind::Agent(it.to_string())))
            .or_else(|| self.path_prefix.as_ref().map(|it| Kind::PathPrefix(it.to_string())))
            .or_else(|| self.delegator.as_ref().map(|it| Kind::Delegator(it.to_string())))
            .or_else(|| self.tool.as_ref().map(|it| Kind::Tool(it.to_string())))
            .or_else(|| self.resource.as_ref().map(resource))
            .or_else(|| self.audience.as_ref().map(|it| Kind::Audience(it.to_string())))
            .or_else(|| self.trust_domain.as_ref().map(|it| Kind::TrustDomain(it.to_string())))
            .or_else(|| self.key_id.as_ref().map(|it| Kind::Key(it.to_string())))
            .or_else(|| self.policy.map(|it| Kind::Policy(it.to_string())))
            .or_else(|| self.everything.then_some(Kind::Everything(true)))
            .ok_or(Usage("say what is meant"))?;
        Ok(v1::Selector { kind: Some(kind) })
    }
}

/// Why a text is not a resource of an audience.
#[derive(Debug, Error)]
enum ResourceError {
    #[error("expected an audience and a resource, with a space between")]
    Parts,
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Resource(#[from] InvalidScope),
}

fn resource(text: &str) -> Result<(AudienceName, ResourcePattern), ResourceError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [audience, resource] = parts[..] else { return Err(ResourceError::Parts) };
    Ok((AudienceName::parse(audience)?, resource.parse()?))
}

/// A selector of an answer: its kind, and what of that kind. One of a kind that is not known is an error: left out, it
/// would look as if it stopped nothing.
pub(super) fn words(wire: Option<v1::Selector>) -> Result<(&'static str, String), NotUnderstood> {
    Ok(match wire.and_then(|selector| selector.kind).ok_or(NotUnderstood)? {
        Kind::Task(name) => ("task", name),
        Kind::Agent(id) => ("agent", id),
        Kind::PathPrefix(id) => ("path_prefix", id),
        Kind::Delegator(id) => ("delegator", id),
        Kind::Tool(name) => ("tool", name),
        Kind::Resource(v1::selector::Resource { audience, resource }) => {
            ("resource", format!("{audience} {resource}"))
        }
        Kind::Audience(name) => ("audience", name),
        Kind::TrustDomain(name) => ("trust_domain", name),
        Kind::Key(id) => ("key", id),
        Kind::Policy(digest) => ("policy", digest),
        Kind::Everything(_) => ("everything", String::new()),
    })
}

/// The same as one JSON member.
pub(super) fn member(kind: &str, what: &str) -> Value {
    let value = if what.is_empty() { json!(true) } else { json!(what) };
    Value::Object(Map::from_iter([(kind.to_owned(), value)]))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selector: SelectorOptions,
    }

    fn said(arguments: &[&str]) -> Option<v1::Selector> {
        Line::try_parse_from([&["x"], arguments].concat()).ok()?.selector.read().ok()
    }

    #[test]
    fn every_selection_comes_back_as_it_was_said_and_two_are_refused() {
        let task = "tasks/00000000000000000000000000";
        let digest = "A".repeat(43);
        for (option, value, kind) in [
            ("--task", task, "task"),
            ("--agent", "spiffe://td/a", "agent"),
            ("--path-prefix", "spiffe://td/a", "path_prefix"),
            ("--delegator", "spiffe://td/a", "delegator"),
            ("--tool", "read", "tool"),
            ("--resource", "https://files.example reports/**", "resource"),
            ("--audience", "https://files.example", "audience"),
            ("--trust-domain", "td.example", "trust_domain"),
            ("--key-id", "k1", "key"),
            ("--policy", &digest, "policy"),
        ] {
            assert_eq!(words(said(&[option, value])).ok(), Some((kind, value.to_owned())), "{option}");
            assert_eq!(said(&[option, value, "--everything"]), None, "{option}");
        }
        assert_eq!(words(said(&["--everything"])).ok(), Some(("everything", String::new())));
        assert_eq!((said(&[]), said(&["--resource", "https://files.example"])), (None, None));
        assert_eq!(member("everything", "").to_string(), r#"{"everything":true}"#);
    }
}
