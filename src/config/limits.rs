//! Limits of tasks, leases and what callers cost. Each has its unit in its name and a safe default.

use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::time::Duration;

use brevet_core::ledger::{LeaseLimits, TreeLimits};
use serde::Deserialize;

use super::{count, defaults};
use crate::openers::Quota;
use crate::remembered::RememberedLimits;
use crate::shares::ShareLimits;
use crate::table::Capacity;
use crate::turns::Turns;

/// What has sent a part of its message.
const UNFINISHED: &str = "calls whose message is not here as a whole";

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// So often in a second, on average.
    pub per_second: NonZeroU32,
    /// So often at once.
    pub burst: NonZeroU32,
}

/// When whoever is refused for overload is asked to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDelays {
    /// Nobody is asked back sooner.
    pub min: Duration,
    /// Nor later: times that are all given out are given out once more.
    pub max: Duration,
    /// Between two that come back.
    pub apart: Duration,
}

/// Limits of tasks and leases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds that a credential lives where none are asked for.
    pub lease_lifetime_seconds_default: NonZeroU64,
    /// Seconds that a credential lives, at most.
    pub lease_lifetime_seconds_max: NonZeroU64,
    /// Seconds that a task lives where none are asked for.
    pub task_lifetime_seconds_default: NonZeroU64,
    /// Seconds that a task lives, at most.
    pub task_lifetime_seconds_max: NonZeroU64,
    /// Live leases of one task.
    pub leases_live_per_task_max: NonZeroU32,
    /// Leases of one task in all its life: dead ones are remembered as long as the task.
    pub leases_issued_per_task_max: NonZeroU32,
    /// Live leases of all the tasks that one workload opened.
    pub leases_live_per_opener_max: NonZeroU32,
    /// Tasks of one workload that are kept, ended ones included.
    pub tasks_per_opener_max: NonZeroU32,
    /// Delegations between a root task and the last task below it.
    pub delegation_depth_max: NonZeroU8,
    /// Tasks of one tree, the root and ended ones included: they are kept as long as the tree.
    pub tasks_per_tree_max: NonZeroU32,
    /// Seconds that an ended task tree can still be read; afterwards only the audit log has it.
    pub ended_kept_seconds: NonZeroU64,
    /// Locks of one tenant at once.
    pub locks_max: NonZeroU32,
    /// Tenants whose locks are swept at once.
    pub lock_sweeps_max: NonZeroU32,
    /// Seconds after which a credential ends whose caller was gone before it could be handed over, unless it asks again.
    pub undelivered_seconds: NonZeroU32,
    /// Tokens that are known by their digest, so that their introspection needs no verification.
    pub tokens_known_max: NonZeroU32,
    /// Notices of early endings that are held for those who watch; who was away for longer takes a little longer.
    pub notices_held_max: NonZeroU32,
    /// Streams of revocations at once.
    pub watch_streams_max: NonZeroU32,
    /// As many of one caller.
    pub watch_streams_per_caller_max: NonZeroU32,
    /// Walks over all trees at once, for streams from further back than the notices.
    pub watch_walks_max: NonZeroU32,
    /// As many for one tenant.
    pub watch_walks_per_tenant_max: NonZeroU32,
    /// Seconds that a reader may hold up its stream.
    pub watch_stall_seconds_max: NonZeroU32,
    /// Decisions made again because what they were made from changed meanwhile.
    pub conflict_retries_max: u32,
    /// Denials that one caller may make the journal keep in a minute; beyond, it is told that there were too many.
    pub denials_recorded_per_minute_max: NonZeroU32,
    /// As many refusals of what cannot be understood.
    pub malformed_recorded_per_minute_max: NonZeroU32,
    /// Refusals of strangers that leave a record in a minute; the rest are counted.
    pub strangers_recorded_per_minute_max: NonZeroU32,
    /// Lists made at once; others wait.
    pub lists_max: NonZeroU32,
    /// As many for one tenant.
    pub lists_per_tenant_max: NonZeroU32,
    /// Lists that one caller may have made or wait for at once.
    pub lists_per_caller_max: NonZeroU32,
    /// DPoP proofs of one tenant that are remembered, so that none is taken twice.
    pub proofs_remembered_per_tenant_max: NonZeroU32,
    /// As many of one caller; of one token, where callers show tokens.
    pub proofs_remembered_per_caller_max: NonZeroU32,
    /// Keys that one connection can prove besides its own and be known by, so that a retry over it is no replay.
    pub keys_proven_per_connection_max: NonZeroU32,
    /// Tasks or records on one page of a list.
    pub page_size_max: NonZeroU32,
    /// Records of the audit log that are looked at for one page.
    pub events_looked_at_max: NonZeroU32,
    /// Streams of the audit log at once.
    pub audit_streams_max: NonZeroU32,
    /// As many of one caller.
    pub audit_streams_per_caller_max: NonZeroU32,
    /// Of those, the ones of one tenant.
    pub audit_streams_per_tenant_max: NonZeroU32,
    /// Seconds that the reader of such a stream may take nothing while records wait for it.
    pub audit_stall_seconds_max: NonZeroU32,
    /// Calls in flight at once, of all callers. Each class but the most urgent is refused at a part of it: reading at 8
    /// sixteenths, issuing at 12, completing at 14, introspection at 15.
    pub calls_in_flight_max: NonZeroU32,
    /// Calls that make new tasks or credentials and are worked on at once; others wait.
    pub issues_at_once_max: NonZeroU32,
    /// Tokens of callers that are verified at once, before anything is known of who shows them; others wait.
    pub tokens_verified_at_once_max: NonZeroU32,
    /// Calls that may wait for that at once.
    pub tokens_waiting_max: NonZeroU32,
    /// Calls at once that have sent a part of their message, of all callers.
    pub calls_unfinished_max: NonZeroU32,
    /// As many of one tenant's callers; those who are of none are counted together.
    pub calls_unfinished_per_tenant_max: NonZeroU32,
    /// As many of one caller.
    pub calls_unfinished_per_caller_max: NonZeroU32,
    /// Calls of one caller in a second, on average, of each class on its own.
    pub calls_per_second_per_caller_max: NonZeroU32,
    /// Calls of one caller at once beyond that, of each class on its own.
    pub calls_burst_per_caller_max: NonZeroU32,
    /// Callers whose calls are counted each on its own; those beyond are counted together.
    pub callers_remembered_max: NonZeroU32,
    /// Milliseconds after which whoever is refused for overload is asked back, at least.
    pub retry_delay_millis_min: NonZeroU32,
    /// As many at most, up to 60000; those who get times between the two come one after the other.
    pub retry_delay_millis_max: NonZeroU32,
    /// Milliseconds between two who come back, of which at least two have room.
    pub retry_delays_apart_millis: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_lifetime_seconds_default: defaults::nonzero(300),
            lease_lifetime_seconds_max: defaults::nonzero(3_600),
            task_lifetime_seconds_default: defaults::nonzero(3_600),
            task_lifetime_seconds_max: defaults::nonzero(86_400),
            leases_live_per_task_max: defaults::small(64),
            leases_issued_per_task_max: defaults::small(10_000),
            leases_live_per_opener_max: defaults::small(10_000),
            tasks_per_opener_max: defaults::small(100_000),
            delegation_depth_max: NonZeroU8::MIN.saturating_add(4),
            tasks_per_tree_max: defaults::small(10_000),
            ended_kept_seconds: defaults::nonzero(86_400),
            locks_max: defaults::small(1_000),
            lock_sweeps_max: defaults::small(8),
            undelivered_seconds: defaults::small(10),
            tokens_known_max: defaults::small(1_000_000),
            notices_held_max: defaults::small(65_536),
            watch_streams_max: defaults::small(10_000),
            watch_streams_per_caller_max: defaults::small(64),
            watch_walks_max: defaults::small(4),
            watch_walks_per_tenant_max: defaults::small(2),
            watch_stall_seconds_max: defaults::small(10),
            conflict_retries_max: 8,
            denials_recorded_per_minute_max: defaults::small(300),
            malformed_recorded_per_minute_max: defaults::small(60),
            strangers_recorded_per_minute_max: defaults::small(60),
            lists_max: defaults::small(4),
            lists_per_tenant_max: defaults::small(2),
            lists_per_caller_max: defaults::small(4),
            proofs_remembered_per_tenant_max: defaults::small(100_000),
            proofs_remembered_per_caller_max: defaults::small(5_000),
            keys_proven_per_connection_max: defaults::small(64),
            page_size_max: defaults::small(100),
            events_looked_at_max: defaults::small(2_048),
            audit_streams_max: defaults::small(16),
            audit_streams_per_caller_max: defaults::small(4),
            audit_streams_per_tenant_max: defaults::small(8),
            audit_stall_seconds_max: defaults::small(10),
            calls_in_flight_max: defaults::small(1_024),
            issues_at_once_max: defaults::small(64),
            tokens_verified_at_once_max: NonZeroU32::MIN,
            tokens_waiting_max: defaults::small(256),
            calls_unfinished_max: defaults::small(4_096),
            calls_unfinished_per_tenant_max: defaults::small(1_024),
            calls_unfinished_per_caller_max: defaults::small(128),
            calls_per_second_per_caller_max: defaults::small(2_000),
            calls_burst_per_caller_max: defaults::small(4_000),
            callers_remembered_max: defaults::small(65_536),
            retry_delay_millis_min: defaults::small(500),
            retry_delay_millis_max: defaults::small(10_000),
            retry_delays_apart_millis: defaults::small(2),
        }
    }
}

impl Limits {
    /// How long a credential lives where nothing is asked for.
    #[must_use]
    pub const fn lease_lifetime_default(&self) -> Duration {
        Duration::from_secs(self.lease_lifetime_seconds_default.get())
    }

    /// How long a credential lives at most.
    #[must_use]
    pub const fn lease_lifetime_max(&self) -> Duration {
        Duration::from_secs(self.lease_lifetime_seconds_max.get())
    }

    /// How long a task lives where nothing is asked for.
    #[must_use]
    pub const fn task_lifetime_default(&self) -> Duration {
        Duration::from_secs(self.task_lifetime_seconds_default.get())
    }

    /// How long an ended task tree can still be read.
    #[must_use]
    pub const fn ended_kept(&self) -> Duration {
        Duration::from_secs(self.ended_kept_seconds.get())
    }

    /// How many tokens are known by their digest.
    #[must_use]
    pub fn tokens_known(&self) -> usize {
        count(self.tokens_known_max)
    }

    /// How many days back a task may have been opened that is still kept.
    #[must_use]
    pub fn days_kept(&self) -> u64 {
        self.task_lifetime_max().saturating_add(self.ended_kept()).as_secs() / 86_400 + 1
    }

    /// How much the table holds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity {
            kept: self.ended_kept(),
            quota: Quota {
                leases_max: count(self.leases_live_per_opener_max),
                tasks_max: count(self.tasks_per_opener_max),
            },
            notices_max: count(self.notices_held_max),
        }
    }

    /// How many locks one tenant may have at once.
    #[must_use]
    pub fn locks_max(&self) -> usize {
        count(self.locks_max)
    }

    /// Of how many tenants locks may be swept at once.
    #[must_use]
    pub fn lock_sweeps_max(&self) -> usize {
        count(self.lock_sweeps_max)
    }

    /// How many streams of revocations there may be.
    #[must_use]
    pub fn watch_streams(&self) -> ShareLimits {
        ShareLimits {
            what: "streams of revocations",
            all: Some(("watch_streams_max", count(self.watch_streams_max))),
            per_holder: ("watch_streams_per_caller_max", count(self.watch_streams_per_caller_max)),
        }
    }

    /// How many may follow the audit log.
    #[must_use]
    pub fn audit_streams(&self) -> ShareLimits {
        ShareLimits {
            what: "streams of the audit log",
            all: Some(("audit_streams_max", count(self.audit_streams_max))),
            per_holder: ("audit_streams_per_caller_max", count(self.audit_streams_per_caller_max)),
        }
    }

    /// How many of one tenant's may follow the audit log.
    #[must_use]
    pub fn audit_streams_of_tenants(&self) -> ShareLimits {
        let per_holder = ("audit_streams_per_tenant_max", count(self.audit_streams_per_tenant_max));
        ShareLimits { what: "streams of the audit log of one tenant", all: None, per_holder }
    }

    /// How many lists one caller may have made at once. In all, they wait for their turn.
    #[must_use]
    pub fn lists_of_callers(&self) -> ShareLimits {
        let per_holder = ("lists_per_caller_max", count(self.lists_per_caller_max));
        ShareLimits { what: "lists", all: None, per_holder }
    }

    /// The turns at making lists.
    #[must_use]
    pub fn lists(&self) -> Turns {
        Turns::new(count(self.lists_max), count(self.lists_per_tenant_max))
    }

    /// The turns of streams that are told from a walk.
    #[must_use]
    pub fn watch_walks(&self) -> Turns {
        Turns::new(count(self.watch_walks_max), count(self.watch_walks_per_tenant_max))
    }

    /// How many calls may be in flight.
    #[must_use]
    pub fn calls_in_flight_max(&self) -> usize {
        count(self.calls_in_flight_max)
    }

    /// How many calls that make something new are worked on at once.
    #[must_use]
    pub fn issues_at_once_max(&self) -> usize {
        count(self.issues_at_once_max)
    }

    /// How many tokens of callers are verified at once, and how many calls wait for that.
    #[must_use]
    pub fn tokens_at_once(&self) -> (usize, usize) {
        (count(self.tokens_verified_at_once_max), count(self.tokens_waiting_max))
    }

    /// How many calls of one caller may have sent a part of their message.
    #[must_use]
    pub fn calls_unfinished_of_callers(&self) -> ShareLimits {
        let per_holder = ("calls_unfinished_per_caller_max", count(self.calls_unfinished_per_caller_max));
        ShareLimits { what: UNFINISHED, all: None, per_holder }
    }

    /// How many of one tenant, and in all.
    #[must_use]
    pub fn calls_unfinished_of_tenants(&self) -> ShareLimits {
        ShareLimits {
            what: UNFINISHED,
            all: Some(("calls_unfinished_max", count(self.calls_unfinished_max))),
            per_holder: ("calls_unfinished_per_tenant_max", count(self.calls_unfinished_per_tenant_max)),
        }
    }

    /// How many DPoP proofs are remembered.
    #[must_use]
    pub fn proofs_remembered(&self) -> RememberedLimits {
        RememberedLimits {
            per_tenant: count(self.proofs_remembered_per_tenant_max),
            per_owner: count(self.proofs_remembered_per_caller_max),
        }
    }

    /// How many keys one connection can prove.
    #[must_use]
    pub fn keys_proven_max(&self) -> usize {
        count(self.keys_proven_per_connection_max)
    }

    /// When whoever is refused for overload is to come back.
    #[must_use]
    pub fn retry_delays(&self) -> RetryDelays {
        let millis = |value: NonZeroU32| Duration::from_millis(value.get().into());
        RetryDelays {
            min: millis(self.retry_delay_millis_min),
            max: millis(self.retry_delay_millis_max),
            apart: millis(self.retry_delays_apart_millis),
        }
    }

    /// How often one caller may call.
    #[must_use]
    pub const fn calls_of_callers(&self) -> RateLimit {
        RateLimit { per_second: self.calls_per_second_per_caller_max, burst: self.calls_burst_per_caller_max }
    }

    /// Of how many callers the calls are counted.
    #[must_use]
    pub fn callers_remembered_max(&self) -> usize {
        count(self.callers_remembered_max)
    }

    /// How many leases one task may have.
    #[must_use]
    pub fn lease_limits(&self) -> LeaseLimits {
        LeaseLimits {
            live_max: self.leases_live_per_task_max.get(),
            issued_max: count(self.leases_issued_per_task_max),
        }
    }

    /// How far one tree may grow.
    #[must_use]
    pub fn tree_limits(&self) -> TreeLimits {
        TreeLimits { depth_max: self.delegation_depth_max.get(), tasks_max: count(self.tasks_per_tree_max) }
    }

    /// How long a task lives at most.
    #[must_use]
    pub const fn task_lifetime_max(&self) -> Duration {
        Duration::from_secs(self.task_lifetime_seconds_max.get())
    }
}
