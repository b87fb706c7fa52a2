//! `brevet verify`: the broker's verifiers, open to anyone's test suite.
//!
//! Cases come as JSON lines on standard input, one answer goes out for each, in order. The verdict is made by the code
//! that judges callers and tokens in the daemon; `docs/verify.md` is the format.

mod kinds;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::thread;

use brevet_identity::bearer;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Exit;
use super::exit::Failure;

/// The longest case in bytes.
const CASE_BYTES_MAX: u64 = 1024 * 1024;
/// Cases are read in pieces of at most so many bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// The most cases that are judged together.
const BATCH_CASES_MAX: usize = 256;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the cases are.
    #[arg(value_enum)]
    kind: Kind,
    /// As the broker judges, or by the letter of the standards.
    #[arg(long, value_enum, default_value_t = Profile::Strict)]
    profile: Profile,
}

/// What is judged.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A signature and its header, by a JWK Set.
    Jws,
    /// A task token.
    Token,
    /// A JWT-SVID as a caller's proof.
    JwtSvid,
    /// A chain of certificates as a caller's proof.
    X509Svid,
    /// A certification request.
    Csr,
    /// A DPoP proof.
    Dpop,
    /// A JWK Set: which of its keys would be taken.
    Jwks,
}

/// By what is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As the broker does.
    Strict,
    /// As the standards leave it open: no `kid`, several audiences, any age.
    Spec,
}

impl Profile {
    fn rules(self) -> bearer::Rules {
        match self {
            Self::Strict => bearer::Rules::Strict(bearer::Limits::default()),
            Self::Spec => bearer::Rules::Specification,
        }
    }
}

/// What a case comes to: what was proven, or the stable reason of the refusal.
type Verdict = Result<kinds::Proven, &'static str>;

/// The answer to one case.
#[derive(Serialize)]
struct Answer {
    id: Value,
    accept: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    proven: Option<kinds::Proven>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// A thread that judged cases ended before it had judged them.
#[derive(Debug, thiserror::Error)]
#[error("a case ended the thread that judged it")]
struct Interrupted;

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut cases = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
    let mut answers = BufWriter::new(io::stdout().lock());
    judge_all(arguments, &mut cases, &mut answers).map_or_else(|failure| failure.report(), |()| Exit::Ok)
}

fn judge_all<R: Read>(
    arguments: &Arguments,
    cases: &mut BufReader<R>,
    answers: &mut impl Write,
) -> Result<(), Failure> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    loop {
        // Whoever sends one case and waits for its answer gets it: a batch is what is there already.
        let mut batch = Vec::new();
        while batch.len() < BATCH_CASES_MAX && (batch.is_empty() || !cases.buffer().is_empty()) {
            let Some(line) = next_line(cases)? else { break };
            batch.push(line);
        }
        if batch.is_empty() {
            return Ok(());
        }
        for answer in answers_to(arguments, &batch, workers)? {
            serde_json::to_writer(&mut *answers, &answer)?;
            answers.write_all(b"\n")?;
        }
        answers.flush()?;
    }
}

/// The answers in the order of the cases, which are judged by several threads.
fn answers_to(arguments: &Arguments, batch: &[Vec<u8>], workers: usize) -> Result<Vec<Answer>, Failure> {
    let share = batch.len().div_ceil(workers).max(1);
    let judge = |lines: &[Vec<u8>]| lines.iter().map(|line| answer(arguments, line)).collect::<Vec<_>>();
    let judged = thread::scope(|scope| {
        let shares: Vec<_> = batch.chunks(share).map(|lines| scope.spawn(move || judge(lines))).collect();
        shares.into_iter().map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
    });
    Ok(judged.map_err(|_| Interrupted)?.into_iter().flatten().collect())
}

/// The next line that is not blank, cut where it is longer than a case may be.
fn next_line<R: Read>(cases: &mut BufReader<R>) -> Result<Option<Vec<u8>>, Failure> {
    loop {
        let mut line = Vec::new();
        if cases.by_ref().take(CASE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            skip_line(cases)?;
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Some(line));
        }
    }
}

/// Passes over the rest of a line that is longer than a case may be.
fn skip_line<R: Read>(cases: &mut BufReader<R>) -> io::Result<()> {
    loop {
        let buffer = cases.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end.saturating_add(1));
        let done = end.is_some() || buffer.is_empty();
        cases.consume(used);
        if done {
            return Ok(());
        }
    }
}

fn answer(arguments: &Arguments, line: &[u8]) -> Answer {
    /// Any case.
    #[derive(Default, Deserialize)]
    struct Named {
        #[serde(default)]
        id: Value,
    }
    let id = serde_json::from_slice::<Named>(line).unwrap_or_default().id;
    let verdict = std::str::from_utf8(line)
        .map_err(|_| kinds::MALFORMED_CASE)
        .and_then(|line| kinds::judge(arguments.kind, arguments.profile, line));
    match verdict {
        Ok(proven) => Answer { id, accept: true, proven: Some(proven), reason: None },
        Err(reason) => Answer { id, accept: false, proven: None, reason: Some(reason) },
    }
}
