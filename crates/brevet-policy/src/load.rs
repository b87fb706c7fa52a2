//! Loads policies: all of them, each with its id and place, valid and understood, or none.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brevet_core::digest::PolicyDigest;
use brevet_core::sabotage;
use brevet_core::terms::LIFETIME_MAX;
use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use thiserror::Error;

use crate::source::{Piece, pieces};
use crate::vocabulary;

/// The most policy files.
pub const FILES_MAX: usize = 256;
/// The most bytes of one policy file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all policy files.
pub const TOTAL_BYTES_MAX: usize = 8 << 20;
/// The most policies.
pub const POLICIES_MAX: usize = 10_000;
/// The most bytes of one policy. It bounds what one evaluation can cost.
pub const POLICY_BYTES_MAX: usize = 16 << 10;

/// How deep the brackets of one policy may nest. Parser and validator recurse, and a stack has an end.
pub const NESTING_MAX: usize = 16;

/// How many `if … then … else` one policy may have: they nest without brackets.
const CONDITIONALS_MAX: usize = 32;
const ID_BYTES_MAX: usize = 64;

/// Why policies are not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file or the directory can't be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// What can't be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory holds no policy file.
    #[error("{} holds no file that ends in .cedar", .0.display())]
    NoFiles(PathBuf),
    /// A file's name can't be quoted in logs and answers.
    #[error("{:?} is not a name for a policy file: expected [A-Za-z0-9._-]+.cedar", .0.display())]
    FileName(PathBuf),
    /// There is more than may be loaded.
    #[error("more than {limit} {unit} of policy")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// A policy is refused.
    #[error("{file}:{line}: {problem}")]
    Policy {
        /// The file, relative to the policy directory.
        file: String,
        /// The line that the policy begins at, counted from one.
        line: u32,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The policy engine refuses the embedded schema, or what it accepted before.
    #[error("the policy engine failed: {0}")]
    Engine(String),
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// It is too long.
    #[error("the policy is longer than {POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// It nests too deep.
    #[error("the policy nests deeper than {NESTING_MAX} brackets or {CONDITIONALS_MAX} conditionals")]
    TooNested,
    /// It is not in the policy language.
    #[error("{0}")]
    Syntax(String),
    /// It has no id.
    #[error("the policy has no @id(\"…\")")]
    NoId,
    /// Its id can't be quoted in logs and answers.
    #[error("the policy's id is not of [A-Za-z0-9._-]{{1,{ID_BYTES_MAX}}}")]
    InvalidId,
    /// Another policy has its id.
    #[error("the id {id} is taken by {file}:{line}")]
    DuplicateId {
        /// The id.
        id: String,
        /// The other policy's file.
        file: String,
        /// The other policy's line.
        line: u32,
    },
    /// It has an annotation without a meaning here, perhaps a misspelt one.
    #[error("unknown annotation @{0}")]
    UnknownAnnotation(String),
    /// Its longest life is not a number of seconds, or too long.
    #[error("@lifetime_seconds_max is not a whole number from 1 to {}", LIFETIME_MAX.as_secs())]
    InvalidLifetime,
    /// It forbids and has an obligation, which would never bind anyone.
    #[error("@lifetime_seconds_max stands on a policy that forbids")]
    ObligationOnForbid,
    /// It does not fit the schema, or the validator warns of it.
    #[error("{0}")]
    Invalid(String),
}

/// Where a policy stands and what it obliges to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
    pub(crate) lifetime_max: Option<Duration>,
}

/// Policies that were found sound, each under its own id.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) digest: PolicyDigest,
    pub(crate) schema: Schema,
    pub(crate) whole: PolicySet,
    pub(crate) provenance: HashMap<PolicyId, Provenance>,
}

/// Reads every `*.cedar` file of a directory.
pub(crate) fn read(directory: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LoadError::Unreadable { path, source }
    };
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "cedar") {
            continue;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| is_quotable(name))
            .ok_or_else(|| LoadError::FileName(path.clone()))?;
        let mut text = String::new();
        let limit = FILE_BYTES_MAX as u64 + 1;
        let file = File::open(&path).map_err(unreadable(&path))?;
        file.take(limit).read_to_string(&mut text).map_err(unreadable(&path))?;
        within(text.len(), FILE_BYTES_MAX, "bytes in one file")?;
        sources.insert(name.to_owned(), text);
        within(sources.len(), FILES_MAX, "files")?;
    }
    if sources.is_empty() { Err(LoadError::NoFiles(directory.to_path_buf())) } else { Ok(sources) }
}

/// Parses and validates policies, by file name.
pub(crate) fn parse(sources: &BTreeMap<String, String>) -> Result<Loaded, LoadError> {
    within(sources.values().map(String::len).sum(), TOTAL_BYTES_MAX, "bytes")?;
    let schema = vocabulary::schema()?;
    let mut whole = PolicySet::new();
    let mut provenance = HashMap::new();
    for (name, text) in sources {
        let file: Arc<str> = name.as_str().into();
        for piece in pieces(text) {
            let refuse = |problem| refusal(&file, piece.line, problem);
            let (policy, lifetime_max) = parse_policy(piece).map_err(refuse)?;
            let id = policy.id().clone();
            if let Some(Provenance { file, line, .. }) = provenance.get(&id) {
                let id = id.to_string();
                return Err(refuse(Problem::DuplicateId { id, file: file.to_string(), line: *line }));
            }
            whole.add(policy).map_err(|error| refuse(Problem::Syntax(error.to_string())))?;
            provenance.insert(id, Provenance { file: file.clone(), line: piece.line, lifetime_max });
            within(provenance.len(), POLICIES_MAX, "policies")?;
        }
    }
    validate(&schema, &whole, &provenance)?;
    Ok(Loaded { digest: digest(sources), schema, whole, provenance })
}

/// A warning counts as an error: each that the validator knows means a policy that never applies or reads other
/// than it looks.
fn validate(
    schema: &Schema,
    whole: &PolicySet,
    provenance: &HashMap<PolicyId, Provenance>,
) -> Result<(), LoadError> {
    let result = Validator::new(schema.clone()).validate(whole, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| (error.policy_id(), error.to_string()));
    let warnings = result.validation_warnings().map(|warning| (warning.policy_id(), warning.to_string()));
    // The validator goes through the policies in no particular order; the reader gets the first in the files'.
    let first = errors.chain(warnings).min_by_key(|(id, text)| {
        let place = provenance.get(id).map(|place| (place.file.clone(), place.line));
        (place, text.clone())
    });
    match first {
        None => Ok(()),
        Some((id, text)) => {
            let (file, line) = provenance.get(id).map_or(("?", 0), |place| (&*place.file, place.line));
            Err(refusal(file, line, Problem::Invalid(text)))
        }
    }
}

fn parse_policy(piece: Piece<'_>) -> Result<(Policy, Option<Duration>), Problem> {
    if piece.text.len() > POLICY_BYTES_MAX {
        return Err(Problem::TooLong);
    }
    // Every conditional has this word; that strings and comments may have it too does no harm.
    if piece.nesting > NESTING_MAX || piece.text.matches("then").count() > CONDITIONALS_MAX {
        return Err(Problem::TooNested);
    }
    let policy = Policy::parse(None, piece.text).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Problem::Syntax(texts.join("; "))
    })?;
    let mut id = None;
    let mut lifetime_max = None;
    for (key, value) in policy.annotations() {
        match key {
            "id" => id = Some(value),
            "lifetime_seconds_max" if policy.effect() == Effect::Permit => {
                lifetime_max = Some(parse_lifetime(value)?);
            }
            "lifetime_seconds_max" => return Err(Problem::ObligationOnForbid),
            unknown => return Err(Problem::UnknownAnnotation(unknown.to_owned())),
        }
    }
    let id = id.ok_or(Problem::NoId)?;
    if id.len() > ID_BYTES_MAX || !is_quotable(id) {
        return Err(Problem::InvalidId);
    }
    Ok((policy.new_id(PolicyId::new(id)), lifetime_max))
}

fn parse_lifetime(text: &str) -> Result<Duration, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| digits).map(Duration::from_secs);
    seconds.filter(|life| !life.is_zero() && *life <= LIFETIME_MAX).ok_or(Problem::InvalidLifetime)
}

fn digest(sources: &BTreeMap<String, String>) -> PolicyDigest {
    let named = |name| if sabotage::on("digest_forgets_names") { "" } else { name };
    let parts: Vec<&[u8]> = std::iter::once(vocabulary::SCHEMA.as_bytes())
        .chain(sources.iter().flat_map(|(name, text)| [named(name).as_bytes(), text.as_bytes()]))
        .collect();
    PolicyDigest::of(&parts)
}

fn is_quotable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn within(count: usize, limit: usize, unit: &'static str) -> Result<(), LoadError> {
    if count > limit { Err(LoadError::TooMuch { limit, unit }) } else { Ok(()) }
}

fn refusal(file: &str, line: u32, problem: Problem) -> LoadError {
    LoadError::Policy { file: file.to_owned(), line, problem }
}
