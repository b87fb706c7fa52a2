//! What the broker stands on: files that people wrote, the journal read back, a clock that goes on where its time stood,
//! and keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::ledger::{Ledger, Task};
use brevet_core::revision::Revision;
use brevet_core::state::State;
use brevet_core::terms::Profile;
use brevet_journal::sqlite::Sqlite;
use ring::rand::SystemRandom;

use super::StartError;
use super::descriptors;
use super::keys::{CheckpointWriter, Keys, Vouched};
use super::recovery::{Recovered, keep_snapshot, recover};
use crate::clock::Clock;
use crate::config::Config;
use crate::configuration::Configuration;
use crate::reload::Reloader;

/// Everything below the broker, made in order.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) configuration: Configuration,
    pub(super) reloader: Reloader,
    pub(super) clock: Clock,
    pub(super) journal: Arc<Sqlite>,
    pub(super) state: State,
    /// What the journal held.
    pub(super) replayed: Revision,
    pub(super) keys: Keys,
    pub(super) rng: SystemRandom,
}

impl Ground {
    /// Lays it. Nothing is served yet, and what is refused leaves everything as it was.
    pub(super) async fn lay(path: &Path) -> Result<Self, StartError> {
        // 1. What was written by people is refused first.
        let config = Config::load(path)?;
        descriptors::make_room(&config)?;
        let reloader = Reloader::new(path, &config);
        let configuration = Configuration::load(&config, reloader.discovered())?;

        // 2. The journal is read, and the state is its fold.
        let Recovered { mut state, verified, snapshot } = recover(&config)?;
        let replayed = verified.head();

        // 3. The clock starts where the journal's time stood.
        let tolerance = Duration::from_secs(config.clock.tolerance_seconds.get().into());
        let clock = Clock::system(state.judged, tolerance)?;

        // 4. The keys, made at the first start and never beside records that other keys vouch for.
        let rng = SystemRandom::new();
        let now = clock.now().issue;
        let vouched = Vouched { records: replayed > Revision::ZERO, jwt_svids: has_jwt_svids(&state) };
        let (keys, checkpoints) = Keys::load_or_create(&config, vouched, now, &rng)?;

        // 5. The journal writes from here on.
        let checkpoints = Arc::new(CheckpointWriter::new(checkpoints, rng.clone()));
        let time = clock.clone();
        let journal =
            verified.start(state.control.revision(), checkpoints, Arc::new(move || time.now().judge))?;
        let journal = Arc::new(journal);

        // 6. What nobody has to be told of any more is left behind, and the next start has less to replay.
        state.forget(now, config.limits.ended_kept());
        let since_snapshot = replayed.0.saturating_sub(snapshot.map_or(0, |revision| revision.0));
        if since_snapshot >= config.journal.snapshot_records.get() {
            keep_snapshot(&journal, &state, clock.now()).await?;
        }
        Ok(Self { config, configuration, reloader, clock, journal, state, replayed, keys, rng })
    }
}

fn has_jwt_svids(state: &State) -> bool {
    let leases = state.trees.values().flat_map(Ledger::tasks).flat_map(Task::leases);
    leases.into_iter().any(|lease| lease.terms().profile() == Profile::JwtSvid)
}
