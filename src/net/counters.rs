//! What a listener counts, and how it reports refusals: strangers must not be able to fill a disk with log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Origin;

/// Lines that describe one refusal each, at most so many in one [`REPORT_INTERVAL`].
const SAMPLES_MAX: u64 = 10;

/// How often refusals that were not described are summed up in one line.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection was refused or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// There are as many connections as the listener takes.
    ConnectionsFull,
    /// The peer has as many connections as one may have.
    PeerFull,
    /// The network that the peer is of has as many connections as one may have.
    NetworkFull,
    /// There are as many handshakes as the listener takes, and none that has to make way.
    HandshakesFull,
    /// It made way for a newcomer, in its handshake or before its caller was known.
    MadeWay,
    /// The handshake took too long.
    HandshakeDeadline,
    /// The handshake failed, in TLS or in the HTTP/2 preface.
    HandshakeFailed,
    /// The peer on the local socket is another user.
    ForeignUser,
    /// The process or the machine has no descriptors or memory left: the connection waits and is tried again.
    Exhausted,
    /// The client did not take an answer in time: the connection was cut with all its calls.
    AnswerUntaken,
    /// Nobody has shown in time who calls.
    Unknown,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::ConnectionsFull,
        Self::PeerFull,
        Self::NetworkFull,
        Self::HandshakesFull,
        Self::MadeWay,
        Self::HandshakeDeadline,
        Self::HandshakeFailed,
        Self::ForeignUser,
        Self::Exhausted,
        Self::AnswerUntaken,
        Self::Unknown,
    ];

    /// The name, the same in metric and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsFull => "connections_full",
            Self::PeerFull => "peer_full",
            Self::NetworkFull => "network_full",
            Self::HandshakesFull => "handshakes_full",
            Self::MadeWay => "made_way",
            Self::HandshakeDeadline => "handshake_deadline",
            Self::HandshakeFailed => "handshake_failed",
            Self::ForeignUser => "foreign_user",
            Self::Exhausted => "exhausted",
            Self::AnswerUntaken => "answer_untaken",
            Self::Unknown => "unknown",
        }
    }
}

/// What one listener has counted since the start.
#[derive(Debug)]
pub struct Counters {
    listener: &'static str,
    accepted: AtomicU64,
    open: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Refusals described in the log since the last report.
    samples: AtomicU64,
}

impl Counters {
    /// Counters at zero of the listener with this name.
    #[must_use]
    pub fn new(listener: &'static str) -> Self {
        Self {
            listener,
            accepted: AtomicU64::default(),
            open: AtomicU64::default(),
            refused: Default::default(),
            samples: AtomicU64::default(),
        }
    }

    /// The listener's name.
    #[must_use]
    pub const fn listener(&self) -> &'static str {
        self.listener
    }

    /// Connections admitted, not counting those refused at once.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections open, those in their handshake included.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections refused for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.get(refusal as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts a refusal and describes it in the log, unless enough have been described lately. The detail comes
    /// from outside and is therefore written escaped.
    pub(crate) fn refuse(&self, refusal: Refusal, origin: Origin, detail: &dyn std::error::Error) {
        if let Some(count) = self.refused.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if self.samples.fetch_add(1, Ordering::Relaxed) < SAMPLES_MAX {
            tracing::warn!(
                listener = self.listener,
                reason = refusal.as_str(),
                address = origin.map(tracing::field::display),
                detail = ?detail,
                "connection refused"
            );
        }
    }

    /// Sums up what the log left out and allows new samples.
    pub(super) fn report(&self) {
        let undescribed = self.samples.swap(0, Ordering::Relaxed).saturating_sub(SAMPLES_MAX);
        if undescribed > 0 {
            tracing::warn!(listener = self.listener, undescribed, "more connections were refused");
        }
    }

    pub(super) fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
