//! The journal alone, as a process of its own: what its callers spend on a record besides what its thread spends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brevet::clock::Clock;
use brevet_core::fact::{Envelope, Fact};
use brevet_core::record;
use brevet_core::revision::{Basis, Revision};
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::{CheckpointSigner, Signature, SigningFailed};
use brevet_journal::sqlite::{Options, Sqlite};
use brevet_journal::{Entry, Journal, Kind, Precedence};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Failure;
use crate::process::obey;

/// The file with the body of the record that is written again and again.
pub(crate) const SAMPLE: &str = "record.json";
/// The folder of the store.
const STORE: &str = "records";

/// So many records, with so many on the way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) records: u64,
    pub(crate) in_flight: u64,
}

/// A record as it is before it is encoded.
struct Sample {
    envelope: Envelope,
    fact: Fact,
    /// As JSON in memory: its types in the daemon can only be written.
    evidence: Value,
}

/// Writes records as ordered until standard input closes.
pub(crate) fn write(dir: &Path) -> Result<(), Failure> {
    let body = std::fs::read(dir.join(SAMPLE))?;
    let read = record::decode(&body)?;
    let evidence = serde_json::from_str(read.evidence.ok_or("a record without evidence")?.get())?;
    let sample = Arc::new(Sample { envelope: read.envelope, fact: read.fact, evidence });
    let store = dir.join(STORE);
    std::fs::create_dir(&store)?;
    let clock = Clock::system(Timestamp::EPOCH, std::time::Duration::ZERO)?;
    let journal = Sqlite::open(Options::new(store))?.replay(|_| Ok::<_, Failure>(()))?.start(
        Revision::ZERO,
        Arc::new(Checkpoints::new()?),
        Arc::new(move || clock.now().judge),
    )?;
    let journal = Arc::new(journal);
    let runtime = tokio::runtime::Runtime::new()?;
    obey(|order: Order| runtime.block_on(append(&journal, &sample, &order)))
}

async fn append(journal: &Arc<Sqlite>, sample: &Arc<Sample>, order: &Order) -> Result<(), Failure> {
    let left = Arc::new(AtomicU64::new(order.records));
    let writers: Vec<_> = (0..order.in_flight)
        .map(|_| {
            let (journal, sample, left) = (Arc::clone(journal), Arc::clone(sample), Arc::clone(&left));
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    append_one(&journal, &sample).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

async fn append_one(journal: &Sqlite, sample: &Sample) -> Result<(), Failure> {
    let root = sample.envelope.tree.ok_or("a record without a tree")?;
    let basis = Basis { tree: Revision::ZERO, control: Revision::ZERO };
    let entry = Entry {
        kind: Kind::Tree { root, basis },
        precedence: Precedence::Growth,
        body: record::encode(&sample.envelope, &sample.fact, Some(&sample.evidence))?,
    };
    let ticket = journal.append(entry, &mut |_| {})?;
    journal.durable(ticket.revision()).await?;
    Ok(())
}

/// Signs checkpoints with a key that nobody keeps.
struct Checkpoints {
    key: EcdsaKeyPair,
    rng: SystemRandom,
}

impl Checkpoints {
    fn new() -> Result<Self, Failure> {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
            .map_err(|_| "no key could be made")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng)
            .map_err(|_| "the key could not be read")?;
        Ok(Self { key, rng })
    }
}

impl CheckpointSigner for Checkpoints {
    fn key_id(&self) -> &str {
        "measured"
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SigningFailed> {
        let signature = self.key.sign(&self.rng, bytes).map_err(|_| SigningFailed)?;
        signature.as_ref().try_into().map_err(|_| SigningFailed)
    }
}
