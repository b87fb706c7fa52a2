//! The SPIFFE ID of a task's SVIDs and the serial number of those in X.509: written and read here alone, so that neither drifts
//! from the other.
//!
//! `spiffe://{own trust domain}/agent/{agent's trust domain}{agent's path}/task/{root}/…/{task}`, with one segment for
//! each id of the task's path. An agent's own path may itself contain `/task/…`; no id is the word `task`, so what
//! follows the last such segment is the task's path and nothing else is. An agent is a workload of another trust
//! domain: what Brevet minted is nobody's identity but its task's (invariant T8).

use thiserror::Error;

use crate::id::{Id, LeaseKey};
use crate::spiffe_id::{InvalidSpiffeId, SpiffeId, TrustDomain};

const AGENT: &str = "/agent/";
const TASK: &str = "/task/";

/// Why an agent and a path make no SPIFFE ID for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidTaskSvidId {
    /// The agent is no workload, or is of the broker's own trust domain.
    #[error("the agent is no workload of another trust domain")]
    Agent,
    /// There is no id in the path.
    #[error("the path names no task")]
    Path,
    /// It would be longer than a SPIFFE ID may be.
    #[error("longer than a spiffe id may be")]
    Length,
}

/// Whose SVID it is: the agent's, for one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSvidId {
    agent: SpiffeId,
    path: Vec<Id>,
}

impl TaskSvidId {
    /// Reads the SPIFFE ID of an SVID that the broker of the trust domain `own` minted. None if it is not a task's.
    #[must_use]
    pub fn parse(id: &SpiffeId, own: &TrustDomain) -> Option<Self> {
        if id.trust_domain_name() != own.as_str() {
            return None;
        }
        let (agent, path) = id.path().strip_prefix(AGENT)?.rsplit_once(TASK)?;
        let agent: SpiffeId = format!("spiffe://{agent}").parse().ok()?;
        let path = path.split('/').map(|segment| segment.parse().ok()).collect::<Option<Vec<Id>>>()?;
        is_agent(&agent, own).then_some(Self { agent, path })
    }

    /// The SPIFFE ID for `agent` while it works on the task at the end of `path`, whose ids lead there from the root.
    ///
    /// # Errors
    /// [`InvalidTaskSvidId`] if that is no agent or no path, or the whole is too long.
    pub fn write(agent: &SpiffeId, path: &[Id], own: &TrustDomain) -> Result<SpiffeId, InvalidTaskSvidId> {
        if !is_agent(agent, own) {
            return Err(InvalidTaskSvidId::Agent);
        }
        if path.is_empty() {
            return Err(InvalidTaskSvidId::Path);
        }
        let path: Vec<String> = path.iter().map(Id::to_string).collect();
        let path = format!("{AGENT}{}{}{TASK}{}", agent.trust_domain_name(), agent.path(), path.join("/"));
        SpiffeId::new(own, &path).map_err(|error| match error {
            InvalidSpiffeId::Length => InvalidTaskSvidId::Length,
            InvalidSpiffeId::Scheme | InvalidSpiffeId::TrustDomain | InvalidSpiffeId::Path => {
                InvalidTaskSvidId::Agent
            }
        })
    }

    /// The agent that works on the task.
    #[must_use]
    pub const fn agent(&self) -> &SpiffeId {
        &self.agent
    }

    /// The ids from the root task to the task, never empty: a lock on any of them is a lock on this.
    #[must_use]
    pub fn path(&self) -> &[Id] {
        &self.path
    }
}

fn is_agent(agent: &SpiffeId, own: &TrustDomain) -> bool {
    !agent.path().is_empty() && agent.trust_domain_name() != own.as_str()
}

/// The lease that a serial number names: its 128 bits are the lease's, as a positive integer. None if it is no such
/// number.
///
/// A certificate has them as a DER `INTEGER` (RFC 5280 §4.1.2.2), `serial` being its content: leading zero bytes are
/// left out, but for the one that keeps a number positive whose first bit is set. So there are 17 bytes at most.
#[must_use]
pub fn lease_of_serial(serial: &[u8]) -> Option<LeaseKey> {
    let magnitude = match serial {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => rest,
        [1..0x80, ..] => serial,
        _ => return None,
    };
    let mut bytes = [0; 16];
    let start = bytes.len().checked_sub(magnitude.len())?;
    bytes.get_mut(start..)?.copy_from_slice(magnitude);
    Some(LeaseKey(Id::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn own() -> TrustDomain {
        "broker.example".parse().unwrap()
    }

    fn spiffe_id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    fn id(n: u8) -> Id {
        Id::from_bytes([n; 16])
    }

    #[test]
    fn a_task_svid_names_agent_and_path() {
        let agent = spiffe_id("spiffe://td.example/ns/prod/a");
        let written = TaskSvidId::write(&agent, &[id(1), id(2)], &own()).unwrap();
        assert_eq!(
            written.as_str(),
            format!("spiffe://broker.example/agent/td.example/ns/prod/a/task/{}/{}", id(1), id(2))
        );
        let read = TaskSvidId::parse(&written, &own()).unwrap();
        assert_eq!((read.agent(), read.path()), (&agent, &[id(1), id(2)][..]));
    }

    #[test]
    fn an_agent_whose_own_path_looks_like_a_task_is_told_from_its_task() {
        for path in ["task", "a/task", "task/task", &format!("a/task/{}", id(9)), &format!("task/{}", id(9))]
        {
            let agent = spiffe_id(&format!("spiffe://td.example/{path}"));
            let written = TaskSvidId::write(&agent, &[id(1)], &own()).unwrap();
            let read = TaskSvidId::parse(&written, &own()).unwrap();
            assert_eq!((read.agent(), read.path()), (&agent, &[id(1)][..]), "{written}");
        }
    }

    #[test]
    fn t8_what_is_no_tasks_svid_of_this_broker_is_read_as_none() {
        let task = id(1);
        for text in [
            "spiffe://broker.example".to_owned(),
            "spiffe://broker.example/brevet".to_owned(),
            format!("spiffe://other.example/agent/td.example/a/task/{task}"),
            format!("spiffe://broker.example/agent/broker.example/a/task/{task}"),
            format!("spiffe://broker.example/agent/td.example/task/{task}"),
            format!("spiffe://broker.example/agent/TD.example/a/task/{task}"),
            format!("spiffe://broker.example/agents/td.example/a/task/{task}"),
            format!("spiffe://broker.example/x/agent/td.example/a/task/{task}"),
            "spiffe://broker.example/agent/td.example/a/task".to_owned(),
            "spiffe://broker.example/agent/td.example/a".to_owned(),
            format!("spiffe://broker.example/agent/td.example/a/task/{task}/b"),
            format!("spiffe://broker.example/agent/td.example/a/task/b/{task}"),
            format!("spiffe://broker.example/agent/td.example/a/task/{}", task.to_string().to_uppercase()),
            format!("spiffe://broker.example/agent/task/{task}"),
        ] {
            assert_eq!(TaskSvidId::parse(&spiffe_id(&text), &own()), None, "{text}");
        }
    }

    #[test]
    fn what_makes_no_id_is_refused() {
        let write = |agent: &str, path: &[Id]| TaskSvidId::write(&spiffe_id(agent), path, &own());
        assert_eq!(write("spiffe://td.example", &[id(1)]), Err(InvalidTaskSvidId::Agent));
        assert_eq!(write("spiffe://broker.example/a", &[id(1)]), Err(InvalidTaskSvidId::Agent));
        assert_eq!(write("spiffe://td.example/a", &[]), Err(InvalidTaskSvidId::Path));
        let agent = |bytes: usize| format!("spiffe://td.example/{}", "a".repeat(bytes - 20));
        let longest = 2048 - "spiffe://broker.example/agent//task/".len() - 26 + "spiffe://".len();
        assert_eq!(write(&agent(longest), &[id(1)]).unwrap().as_str().len(), 2048);
        assert_eq!(write(&agent(longest + 1), &[id(1)]), Err(InvalidTaskSvidId::Length));
        assert_eq!(write(&agent(longest), &[id(1), id(2)]), Err(InvalidTaskSvidId::Length));
    }

    #[test]
    fn l4_only_a_positive_number_of_128_bits_in_its_one_spelling_names_a_lease() {
        let lease = |bytes| Some(LeaseKey(Id::from_bytes(bytes)));
        assert_eq!(lease_of_serial(&[&[0][..], &[0xff; 16]].concat()), lease([0xff; 16]));
        assert_eq!(lease_of_serial(&[0x7f; 16]), lease([0x7f; 16]));
        assert_eq!(lease_of_serial(&[1]), lease(1_u128.to_be_bytes()));
        assert_eq!(lease_of_serial(&[0, 0x80]), lease(0x80_u128.to_be_bytes()));
        for bad in [&[][..], &[0], &[0, 0], &[0, 1], &[0x80], &[0xff; 16], &[1; 17], &[0, 0, 0x80]] {
            assert_eq!(lease_of_serial(bad), None, "{bad:?}");
        }
        assert_eq!(lease_of_serial(&[&[0][..], &[0xff; 17]].concat()), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            agent in "spiffe://[a-z0-9]{1,9}/([A-Za-z0-9_-]{1,9}/|task/){0,3}[A-Za-z0-9_-]{1,9}",
            path in vec(any::<[u8; 16]>().prop_map(Id::from_bytes), 1..6),
        ) {
            let agent = spiffe_id(&agent);
            let written = TaskSvidId::write(&agent, &path, &own()).unwrap();
            let read = TaskSvidId::parse(&written, &own()).unwrap();
            prop_assert_eq!((read.agent(), read.path()), (&agent, path.as_slice()));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(
            path in "/agent(/td\\.example|/task|/[0-7][0-9a-hjkmnp-tv-z]{25}|/[a-z]{1,4}){0,8}",
        ) {
            let id = SpiffeId::new(&own(), &path).unwrap();
            if let Some(read) = TaskSvidId::parse(&id, &own()) {
                prop_assert_eq!(TaskSvidId::write(read.agent(), read.path(), &own()), Ok(id));
            }
        }

        #[test]
        fn l4_a_serial_is_the_lease_and_no_two_leases_share_one(bytes: [u8; 16], zeros in 0_usize..16) {
            let mut bytes = bytes;
            bytes[..zeros].fill(0);
            let number = u128::from_be_bytes(bytes);
            prop_assume!(number != 0);
            let skipped = number.leading_zeros() as usize / 8;
            let magnitude = &bytes[skipped..];
            let sign: &[u8] = if magnitude[0] >= 0x80 { &[0] } else { &[] };
            let serial = [sign, magnitude].concat();
            prop_assert_eq!(lease_of_serial(&serial), Some(LeaseKey(Id::from_bytes(bytes))));
        }
    }
}
