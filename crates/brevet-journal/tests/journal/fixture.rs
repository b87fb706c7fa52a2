//! A key, a way to open a store, and copies of its files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use brevet_core::revision::Revision;
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::{CheckpointKey, CheckpointSigner, Signature, SigningFailed};
use brevet_journal::sqlite::{Clock, OpenError, Options, Snapshot, SpaceProbe, Sqlite, Verified};
use brevet_journal::{Journal, Record};
use brevet_testkit::journal::conformance::note;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

pub(crate) struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    pub(crate) fn new(id: &str) -> Arc<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Arc::new(Self { id: id.to_owned(), pair })
    }

    pub(crate) fn public(&self) -> CheckpointKey {
        CheckpointKey::from_point(&self.id, self.pair.public_key().as_ref()).unwrap()
    }
}

impl CheckpointSigner for Key {
    fn key_id(&self) -> &str {
        &self.id
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SigningFailed> {
        let signature = self.pair.sign(&SystemRandom::new(), bytes).map_err(|_| SigningFailed)?;
        signature.as_ref().try_into().map_err(|_| SigningFailed)
    }
}

/// Options for a small store on a disk that always has room.
pub(crate) fn options(dir: &Path) -> Options {
    Options { reserve_bytes: 4096, space: SpaceProbe::new(|_| Ok(1 << 30)), ..Options::new(dir) }
}

pub(crate) fn clock() -> Clock {
    Arc::new(|| Timestamp::from_seconds(1_800_000_000))
}

/// What a start finds.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) records: Vec<Record>,
}

pub(crate) fn replay(options: Options) -> Result<(Found, Verified), OpenError> {
    let recovery = Sqlite::open(options)?;
    let snapshot = recovery.snapshot().cloned();
    let mut records = Vec::new();
    let verified = recovery.replay(|record| {
        records.push(Record { revision: record.revision, chain: record.chain, body: record.body.to_owned() });
        Ok::<_, Infallible>(())
    })?;
    Ok((Found { snapshot, records }, verified))
}

pub(crate) fn start(options: Options, key: Arc<dyn CheckpointSigner>) -> Arc<Sqlite> {
    let (_, verified) = replay(options).unwrap();
    Arc::new(verified.start(Revision::ZERO, key, clock()).unwrap())
}

/// Appends notes one by one, each durable before the next.
pub(crate) fn append(journal: &dyn Journal, bodies: impl IntoIterator<Item = Vec<u8>>) {
    for body in bodies {
        wait(journal.append(note(&body), &mut |_| ()).unwrap().durable()).unwrap();
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The files of a store by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

/// Replaces whatever is in a directory.
pub(crate) fn lay(dir: &Path, files: &Files) {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}
