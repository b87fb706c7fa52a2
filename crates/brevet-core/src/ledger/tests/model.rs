//! The definitions, written out once more and without regard to cost: lists, and a search through all of them for
//! every question.

use super::super::*;
use super::sample::tenant;
use crate::digest::RequestDigest;
use crate::id::LeaseKey;
use crate::lock::{Lock, Selector};
use crate::name::RequestId;
use crate::request::Sensitivity;
use crate::scope::Scope;
use crate::terms::{Content, Terms};

/// A task that was opened.
#[derive(Debug)]
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) parent: Option<usize>,
    pub(crate) tenant: &'static str,
    pub(crate) agent: SpiffeId,
    pub(crate) delegator: SpiffeId,
    pub(crate) opener: SpiffeId,
    pub(crate) sensitivity: Sensitivity,
    pub(crate) scope: Scope,
    pub(crate) opened: Revision,
    pub(crate) deadline: u64,
    pub(crate) holder: Holder,
    /// Whether a command ended it.
    pub(crate) ended: bool,
    /// Whether it has an ending of its own, be it by the reaper or a sweep.
    pub(crate) recorded: bool,
}

/// A lease that was issued.
#[derive(Debug)]
pub(crate) struct LeaseRow {
    pub(crate) task: usize,
    pub(crate) terms: Terms,
    pub(crate) issued: Revision,
    pub(crate) renews: Option<LeaseKey>,
    pub(crate) request: (RequestId, RequestDigest),
    /// Whether a command ended it.
    pub(crate) ended: bool,
    /// Whether it has an ending of its own, be it by the reaper or a sweep.
    pub(crate) recorded: bool,
    /// The first fact by which it or a task on its path got an ending.
    pub(crate) died: Option<Revision>,
}

/// A lock that was created. That it was swept, and that its record was forgotten, is nothing to the model.
#[derive(Debug)]
pub(crate) struct LockRow {
    pub(crate) lock: Lock,
    pub(crate) created: Revision,
    pub(crate) lifted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) tasks: Vec<TaskRow>,
    pub(crate) leases: Vec<LeaseRow>,
    pub(crate) locks: Vec<LockRow>,
}

impl Model {
    /// The task, its parent, and so on up to the root.
    pub(crate) fn line(&self, task: usize) -> Vec<usize> {
        let mut line = vec![task];
        while let Some(parent) = self.tasks[*line.last().unwrap()].parent {
            line.push(parent);
        }
        line
    }

    /// A task lives if nothing ended it, its deadline has not come, no lock recorded after it matches it, and its
    /// parent lives.
    pub(crate) fn task_lives(&self, task: usize, judge: u64) -> bool {
        let row = &self.tasks[task];
        !row.ended
            && judge < row.deadline
            && !self.locks.iter().any(|lock| lock.created > row.opened && self.matches_task(lock, task))
            && row.parent.is_none_or(|parent| self.task_lives(parent, judge))
    }

    /// A lease lives if nothing ended it, its end has not come, no lock recorded after it matches it or its task, and
    /// its task lives.
    pub(crate) fn lease_lives(&self, lease: usize, judge: u64) -> bool {
        let row = &self.leases[lease];
        let matches = |lock: &LockRow| self.matches_terms(lock, lease) || self.matches_task(lock, row.task);
        !row.ended
            && judge < row.terms.end.millis()
            && !self.locks.iter().any(|lock| lock.created > row.issued && matches(lock))
            && self.task_lives(row.task, judge)
    }

    pub(crate) fn leases_live(&self, task: usize, judge: u64) -> usize {
        (0..self.leases.len())
            .filter(|lease| self.leases[*lease].task == task && self.lease_lives(*lease, judge))
            .count()
    }

    /// Whether a lock in force stops this task, or a lease of these terms in it.
    pub(crate) fn is_stopped(&self, task: &TaskRow, terms: Option<&Terms>, judge: u64) -> bool {
        self.locks.iter().any(|lock| {
            let in_force = !lock.lifted && lock.lock.until.is_none_or(|until| judge < until.millis());
            in_force
                && binds(lock, task.tenant)
                && (self.stops_row(&lock.lock.selector, task)
                    || terms.is_some_and(|terms| stops_terms(&lock.lock.selector, terms)))
        })
    }

    /// The latest end that something of a task may have.
    pub(crate) fn deadline(&self, task: usize) -> u64 {
        self.line(task).iter().map(|hop| self.tasks[*hop].deadline).min().unwrap()
    }

    pub(crate) fn leases_issued(&self, task: usize) -> usize {
        self.leases.iter().filter(|lease| lease.task == task).count()
    }

    /// Whether a lease has an ending of its own, or a task on its path has: what is dead without a look at a clock or
    /// a lock.
    pub(crate) fn is_recorded(&self, lease: usize) -> bool {
        let row = &self.leases[lease];
        row.recorded || self.line(row.task).iter().any(|hop| self.tasks[*hop].recorded)
    }

    /// How many leases each opener answers for.
    pub(crate) fn leases_open(&self) -> BTreeMap<SpiffeId, usize> {
        let mut open = BTreeMap::new();
        for lease in (0..self.leases.len()).filter(|lease| !self.is_recorded(*lease)) {
            *open.entry(self.tasks[self.leases[lease].task].opener.clone()).or_default() += 1;
        }
        open
    }

    /// Whether an operator's selection of one tree takes a lease.
    pub(crate) fn selects(&self, selector: &Selector, lease: usize) -> bool {
        let row = &self.leases[lease];
        self.stops_row(selector, &self.tasks[row.task]) || stops_terms(selector, &row.terms)
    }

    /// An owner opened the task, or opened or works on a task above it.
    pub(crate) fn owns(&self, task: usize, who: &SpiffeId) -> bool {
        let row = &self.tasks[task];
        row.opener == *who
            || row.parent.is_some_and(|above| self.tasks[above].agent == *who || self.owns(above, who))
    }

    fn matches_task(&self, lock: &LockRow, task: usize) -> bool {
        binds(lock, self.tasks[task].tenant) && self.stops_row(&lock.lock.selector, &self.tasks[task])
    }

    fn matches_terms(&self, lock: &LockRow, lease: usize) -> bool {
        let row = &self.leases[lease];
        binds(lock, self.tasks[row.task].tenant) && stops_terms(&lock.lock.selector, &row.terms)
    }

    fn stops_row(&self, selector: &Selector, task: &TaskRow) -> bool {
        let here = match selector {
            Selector::Everything => true,
            Selector::Task(stopped) => task.id == *stopped,
            Selector::Agent(agent) => task.agent == *agent,
            Selector::Delegator(delegator) => task.delegator == *delegator,
            Selector::PathPrefix(prefix) => {
                let segments = |id: &SpiffeId| id.as_str().split('/').map(str::to_owned).collect::<Vec<_>>();
                segments(&task.agent).starts_with(&segments(prefix))
            }
            Selector::TrustDomain(domain) => [&task.agent, &task.delegator, &task.opener]
                .iter()
                .any(|party| party.as_str().split('/').nth(2) == Some(domain.as_str())),
            _ => false,
        };
        here || task.parent.is_some_and(|parent| self.stops_row(selector, &self.tasks[parent]))
    }
}

fn binds(lock: &LockRow, name: &str) -> bool {
    lock.lock.tenant.is_none() || lock.lock.tenant == Some(tenant(name))
}

fn stops_terms(selector: &Selector, terms: &Terms) -> bool {
    let (scope, audience_is) = match &terms.content {
        Content::TaskToken(token) => (token.scope.permissions(), Some(&token.audience)),
        Content::X509Svid(_) => (&[][..], None),
        Content::JwtSvid(svid) => {
            let opened = match selector {
                Selector::Tool(_) => true,
                Selector::Resource { audience, .. } => *audience == svid.audience,
                _ => false,
            };
            if opened {
                return true;
            }
            (&[][..], Some(&svid.audience))
        }
    };
    scope.iter().any(|permission| match selector {
        Selector::Tool(tool) => permission.actions().iter().any(|action| action == tool),
        Selector::Resource { audience, resource } => {
            permission.audience() == audience
                && PLACES.iter().any(|place| {
                    means(permission.resource().as_str(), place) && means(resource.as_str(), place)
                })
        }
        _ => false,
    }) || match selector {
        Selector::Audience(audience) => audience_is == Some(audience),
        Selector::Key(key) => terms.key_id == *key,
        Selector::Policy(policy) => terms.policy == *policy,
        _ => false,
    }
}

/// Whether whatever a scope permits another permits too, by trying.
pub(crate) fn is_within(scope: &Scope, other: &Scope) -> bool {
    let permits = |scope: &Scope, name: &str, place: &str, tool: &str| {
        scope.permissions().iter().any(|permission| {
            permission.audience().as_str() == name
                && means(permission.resource().as_str(), place)
                && permission.actions().iter().any(|action| action.as_str() == tool)
        })
    };
    ["x", "y"].iter().all(|name| {
        PLACES.iter().all(|place| {
            ["r", "w"]
                .iter()
                .all(|tool| !permits(scope, name, place, tool) || permits(other, name, place, tool))
        })
    })
}

/// Enough resources that two patterns of the sequences which overlap have one of these in common.
const PLACES: [&str; 9] = ["a", "a/b", "a/bc", "a/b/c", "a/b/c/d", "a/x", "ab", "b", "b/y"];

fn means(pattern: &str, place: &str) -> bool {
    let place: Vec<&str> = place.split('/').collect();
    match pattern.strip_suffix("/**") {
        None => place == pattern.split('/').collect::<Vec<_>>(),
        Some(above) => {
            let above: Vec<&str> = above.split('/').collect();
            place.len() > above.len() && place.starts_with(&above)
        }
    }
}
