//! What `/metrics` tells. Every label is an enumeration or a constant of the program, never a name from outside, so
//! that no caller can make the series grow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::net::{Counters, Refusal};

/// The media type of the text that [`Metrics::text`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a request that reached a decision was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecisionOutcome {
    /// Policy permitted it.
    Permitted,
    /// Policy denied it, or could not be evaluated.
    Denied,
    /// It was permitted and is refused for its state: a closed task, a quota, a lock.
    Refused,
}

impl EncodeLabelValue for DecisionOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Permitted => "permitted",
            Self::Denied => "denied",
            Self::Refused => "refused",
        }
        .encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: DecisionOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Profile {
    profile: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Excess {
    class: &'static str,
    reason: &'static str,
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family<Outcome, Counter>,
    mints: Family<Profile, Counter>,
    endings: Family<Ending, Counter>,
    locked: Family<Kind, Counter>,
    root_socket_uses: Counter,
    strangers: Counter,
    bearers_elsewhere: Counter,
    denials_unrecorded: Counter,
    turned_away: Family<Excess, Counter>,
    locks_in_force: Gauge<u64, AtomicU64>,
    durable_revision: Gauge<u64, AtomicU64>,
    live_leases: Gauge<u64, AtomicU64>,
    streams_open: Family<Kind, Gauge<u64, AtomicU64>>,
}

impl Metrics {
    /// Metrics at zero, and those of the listeners with these counters.
    #[must_use]
    pub fn new(listeners: Vec<Arc<Counters>>) -> Self {
        let mut registry = Registry::with_prefix("brevet");
        let decisions = Family::default();
        let mints = Family::default();
        let endings = Family::default();
        let locked = Family::default();
        let root_socket_uses = Counter::default();
        let strangers = Counter::default();
        let bearers_elsewhere = Counter::default();
        let denials_unrecorded = Counter::default();
        let turned_away = Family::default();
        let locks_in_force = Gauge::default();
        let durable_revision = Gauge::default();
        let live_leases = Gauge::default();
        let streams_open = Family::default();
        registry.register("decisions", "Decisions by outcome", decisions.clone());
        registry.register("mints", "Credentials minted by profile", mints.clone());
        registry.register("endings", "Tasks and leases ended by kind and outcome", endings.clone());
        registry.register("locked", "Tasks and leases ended by locks by kind", locked.clone());
        registry.register(
            "root_socket_uses",
            "Changes asked for over the local root socket, each of which is an alarm",
            root_socket_uses.clone(),
        );
        registry.register("locks_in_force", "Locks that forbid new issue", locks_in_force.clone());
        registry.register(
            "denials_unrecorded",
            "Denials in whose place callers were told that there were too many, or that nothing could be recorded",
            denials_unrecorded.clone(),
        );
        registry.register(
            "calls_turned_away",
            "Calls refused before anything was done for them, by their class and the limit that was reached",
            turned_away.clone(),
        );
        registry.register("strangers", "Calls refused because the caller is not known", strangers.clone());
        registry.register(
            "bearers_elsewhere",
            "Tokens of bearers shown with another key than they are bound to, each of which is an alarm",
            bearers_elsewhere.clone(),
        );
        registry.register(
            "journal_durable_revision",
            "The last revision the journal holds durably",
            durable_revision.clone(),
        );
        registry.register("live_leases", "Leases whose credentials are accepted now", live_leases.clone());
        registry.register("streams_open", "Streams that are open by kind", streams_open.clone());
        registry.register_collector(Box::new(Listeners(listeners)));
        Self {
            registry,
            decisions,
            mints,
            endings,
            locked,
            root_socket_uses,
            strangers,
            bearers_elsewhere,
            denials_unrecorded,
            turned_away,
            locks_in_force,
            durable_revision,
            live_leases,
            streams_open,
        }
    }

    /// A decision was made.
    pub fn decided(&self, outcome: DecisionOutcome) {
        self.decisions.get_or_create(&Outcome { outcome }).inc();
    }

    /// A credential of this profile was minted.
    pub fn minted(&self, profile: &'static str) {
        self.mints.get_or_create(&Profile { profile }).inc();
    }

    /// So many tasks or leases (`kind`) ended with this outcome.
    pub fn ended(&self, kind: &'static str, outcome: &'static str, count: u64) {
        self.endings.get_or_create(&Ending { kind, outcome }).inc_by(count);
    }

    /// So many of the tasks or leases (`kind`) that ended did so by a lock.
    pub fn locked(&self, kind: &'static str, count: u64) {
        self.locked.get_or_create(&Kind { kind }).inc_by(count);
    }

    /// Somebody is about to change something over the local root socket.
    pub fn root_socket_used(&self) {
        self.root_socket_uses.inc();
    }

    /// A denial was not recorded, and so not answered as such either.
    pub fn denial_unrecorded(&self) {
        self.denials_unrecorded.inc();
    }

    /// A call of this class was refused because a limit was reached, before anything was done for it.
    pub fn turned_away(&self, class: &'static str, reason: &'static str) {
        self.turned_away.get_or_create(&Excess { class, reason }).inc();
    }

    /// A call was refused because its caller is not known.
    pub fn refused_stranger(&self) {
        self.strangers.inc();
    }

    /// A bearer's token that is bound to one key was shown with another.
    pub fn bearer_shown_with_another_key(&self) {
        self.bearers_elsewhere.inc();
    }

    /// The journal holds everything up to this revision durably.
    pub fn set_durable_revision(&self, revision: u64) {
        self.durable_revision.set(revision);
    }

    /// So many locks forbid new issue.
    pub fn set_locks_in_force(&self, count: u64) {
        self.locks_in_force.set(count);
    }

    /// So many leases live.
    pub fn set_live_leases(&self, count: u64) {
        self.live_leases.set(count);
    }

    /// So many streams of a kind are open.
    pub fn set_streams_open(&self, kind: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.streams_open.get_or_create(&Kind { kind }).set(count);
    }

    /// All of it in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Never but when writing to a string fails.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Reads the listeners' counters when asked.
#[derive(Debug)]
struct Listeners(Vec<Arc<Counters>>);

impl Collector for Listeners {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut open = encoder.encode_descriptor(
            "connections_open",
            "Connections open by listener",
            None,
            MetricType::Gauge,
        )?;
        for counters in &self.0 {
            let labels = [("listener", counters.listener())];
            ConstGauge::new(counters.open()).encode(open.encode_family(&labels)?)?;
        }
        let mut accepted = encoder.encode_descriptor(
            "connections",
            "Connections admitted by listener",
            None,
            MetricType::Counter,
        )?;
        for counters in &self.0 {
            let labels = [("listener", counters.listener())];
            ConstCounter::new(counters.accepted()).encode(accepted.encode_family(&labels)?)?;
        }
        let mut refused = encoder.encode_descriptor(
            "connections_refused",
            "Connections refused by listener and reason",
            None,
            MetricType::Counter,
        )?;
        for counters in &self.0 {
            for refusal in Refusal::ALL {
                let labels = [("listener", counters.listener()), ("reason", refusal.as_str())];
                ConstCounter::new(counters.refused(refusal)).encode(refused.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
