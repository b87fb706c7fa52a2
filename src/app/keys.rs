//! The private keys of the state directory. They are made together, at the first start.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brevet_core::name::KeyId;
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use brevet_mint::ca::{CaFiles, CaKey};
use brevet_mint::key::{Bookmarks, Checkpoints, JwtSvids, KeyError, SigningKey, TaskTokens};
use brevet_mint::state_key::StateKey;
use ring::rand::SystemRandom;

use super::StartError;
use crate::config::Config;

/// The key of the journal's checkpoints, in the state directory.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint.key";
/// The key of task tokens, in the state directory.
pub const TASK_TOKEN_KEY_FILE: &str = "task-token.key";
/// The key of JWT-SVIDs, in the state directory.
pub const JWT_SVID_KEY_FILE: &str = "jwt-svid.key";
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
    pub(super) jwt_svids: SigningKey<JwtSvids>,
    pub(super) bookmarks: SigningKey<Bookmarks>,
    pub(super) state: StateKey,
    pub(super) authority: Arc<CaKey>,
    /// The `spiffe_sequence` of the bundle that has both.
    pub(super) bundle_sequence: u64,
    /// Which key signs the journal's checkpoints; the key itself is the journal's.
    pub(super) checkpoints: KeyId,
}

/// Whose keys may not be made anew: others vouch for what is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vouched {
    /// The journal has records.
    pub(super) records: bool,
    /// JWT-SVIDs are among what it remembers. There were none before there was a key of theirs.
    pub(super) jwt_svids: bool,
}

impl Keys {
    /// Reads the keys, and the one of the journal's checkpoints, or makes them where no others vouch for what is there.
    pub(super) fn load_or_create(
        config: &Config,
        vouched: Vouched,
        now: Timestamp,
        rng: &SystemRandom,
    ) -> Result<(Self, SigningKey<Checkpoints>), StartError> {
        let directory = &config.state_directory;
        for (name, vouched) in [
            (CHECKPOINT_KEY_FILE, vouched.records),
            (TASK_TOKEN_KEY_FILE, vouched.records),
            (STATE_KEY_FILE, vouched.records),
            (CA_KEY_FILE, vouched.records),
            (JWT_SVID_KEY_FILE, vouched.jwt_svids),
        ] {
            let path = directory.join(name);
            if vouched && !path.exists() {
                return Err(StartError::KeyMissing(path));
            }
        }
        let files = CaFiles { key: directory.join(CA_KEY_FILE), certificate: directory.join("ca.pem") };
        let checkpoints: SigningKey<Checkpoints> =
            SigningKey::load_or_create(&directory.join(CHECKPOINT_KEY_FILE), rng)?;
        let jwt_svid_key = directory.join(JWT_SVID_KEY_FILE);
        let jwt_svids = SigningKey::load_or_create(&jwt_svid_key, rng)?;
        let authority =
            Arc::new(CaKey::load_or_create(&files, &config.trust_domain, now, AUTHORITY_LIFETIME, rng)?);
        let keys = Self {
            bundle_sequence: bundle_sequence(&authority, &jwt_svid_key)?,
            jwt_svids,
            authority,
            tokens: SigningKey::load_or_create(&directory.join(TASK_TOKEN_KEY_FILE), rng)?,
            bookmarks: SigningKey::load_or_create(&directory.join(BOOKMARK_KEY_FILE), rng)?,
            state: StateKey::load_or_create(&directory.join(STATE_KEY_FILE), rng)?,
            checkpoints: checkpoints.kid().clone(),
        };
        Ok((keys, checkpoints))
    }
}

/// It must change whenever the bundle does, and grow (SPIFFE Trust Domain and Bundle §4.1.1). An authority that is made
/// later ends later; a key of JWT-SVIDs counts as an authority that was made together with its file.
fn bundle_sequence(authority: &CaKey, jwt_svid_key: &Path) -> Result<u64, StartError> {
    let made = fs::metadata(jwt_svid_key)
        .map_err(|source| KeyError::Io { path: jwt_svid_key.to_owned(), source })?
        .mtime();
    let as_authority = u64::try_from(made).unwrap_or(0).saturating_add(AUTHORITY_LIFETIME.as_secs());
    Ok(authority.end().seconds().max(as_authority))
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
