//! The private keys of the state directory. They are made together, at the first start.

use std::sync::Arc;
use std::time::Duration;

use brevet_core::name::KeyId;
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use brevet_mint::ca::{CaFiles, CaKey};
use brevet_mint::key::{Bookmarks, Checkpoints, SigningKey, TaskTokens};
use brevet_mint::state_key::StateKey;
use ring::rand::SystemRandom;

use super::StartError;
use crate::config::Config;

/// The key of the journal's checkpoints, in the state directory.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint.key";
/// The key of task tokens, in the state directory.
pub const TASK_TOKEN_KEY_FILE: &str = "task-token.key";
/// The key of bookmarks of revocation streams, in the state directory. It vouches for no records, so that it is made
/// where it is missing.
pub const BOOKMARK_KEY_FILE: &str = "bookmark.key";
/// The key of root task ids and claims, in the state directory.
const STATE_KEY_FILE: &str = "state.key";
/// The key of the broker's own authority, in the state directory.
const CA_KEY_FILE: &str = "ca.key";
/// How long the broker's own authority lives.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the broker signs and makes ids with.
pub(super) struct Keys {
    pub(super) tokens: SigningKey<TaskTokens>,
    pub(super) bookmarks: SigningKey<Bookmarks>,
    pub(super) state: StateKey,
    pub(super) authority: Arc<CaKey>,
    /// Which key signs the journal's checkpoints; the key itself is the journal's.
    pub(super) checkpoints: KeyId,
}

impl Keys {
    /// Reads the keys, and the one of the journal's checkpoints. Beside a journal that has records none is made anew: others vouch for those.
    pub(super) fn load_or_create(
        config: &Config,
        has_records: bool,
        now: Timestamp,
        rng: &SystemRandom,
    ) -> Result<(Self, SigningKey<Checkpoints>), StartError> {
        let directory = &config.state_directory;
        for name in [CHECKPOINT_KEY_FILE, TASK_TOKEN_KEY_FILE, STATE_KEY_FILE, CA_KEY_FILE] {
            let path = directory.join(name);
            if has_records && !path.exists() {
                return Err(StartError::KeyMissing(path));
            }
        }
        let files = CaFiles { key: directory.join(CA_KEY_FILE), certificate: directory.join("ca.pem") };
        let checkpoints: SigningKey<Checkpoints> =
            SigningKey::load_or_create(&directory.join(CHECKPOINT_KEY_FILE), rng)?;
        let keys = Self {
            tokens: SigningKey::load_or_create(&directory.join(TASK_TOKEN_KEY_FILE), rng)?,
            bookmarks: SigningKey::load_or_create(&directory.join(BOOKMARK_KEY_FILE), rng)?,
            state: StateKey::load_or_create(&directory.join(STATE_KEY_FILE), rng)?,
            authority: Arc::new(CaKey::load_or_create(
                &files,
                &config.trust_domain,
                now,
                AUTHORITY_LIFETIME,
                rng,
            )?),
            checkpoints: checkpoints.kid().clone(),
        };
        Ok((keys, checkpoints))
    }
}

/// Signs the journal's checkpoints with a key that signs nothing else.
pub(super) struct CheckpointWriter {
    key: SigningKey<Checkpoints>,
    rng: SystemRandom,
}

impl CheckpointWriter {
    pub(super) const fn new(key: SigningKey<Checkpoints>, rng: SystemRandom) -> Self {
        Self { key, rng }
    }
}

impl CheckpointSigner for CheckpointWriter {
    fn key_id(&self) -> &str {
        self.key.kid().as_str()
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SigningFailed> {
        self.key.sign(bytes, &self.rng).map_err(|_| SigningFailed)
    }
}
