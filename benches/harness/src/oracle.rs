//! Whether what exists and is another's can be told from what does not exist by the time that a refusal takes
//! (attack 68).
//!
//! Both are asked for in a random order, one call after the other, and the means are compared by Welch's test. What the
//! machine did meanwhile makes the slowest times, which say nothing of the daemon: the slowest tenth of all is left out
//! on both sides alike, as those who look for such leaks do.

use std::path::{Path, PathBuf};

use brevet::clock::since_boot;
use brevet_api::v1;
use brevet_client::Broker;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use tonic::{Code, Status};

use crate::process::Process;
use crate::{Failure, requests, world};

/// The caller who wants to know.
const CURIOUS: &str = "agent-b";
/// Beyond, it is taken for told apart, as is usual with this test.
const T_MAX: f64 = 4.5;

/// How much is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct OracleSettings {
    /// Calls of each side, by each method.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    calls: u32,
    /// Print JSON on standard output, and the table on standard error.
    #[arg(long)]
    json: bool,
    /// Where the run's own folder is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What one method tells by its time.
#[derive(Debug, Serialize)]
struct Told {
    method: &'static str,
    /// Welch's t.
    t: f64,
    /// The means of what is another's and of what does not exist, in microseconds.
    means: [f64; 2],
}

/// A call that is refused: by each method that takes the name of something.
#[derive(Debug, Clone, Copy)]
enum Method {
    GetTask,
    CompleteTask,
    IssueCredential,
    ReturnCredential,
}

impl Method {
    const ALL: [Self; 4] = [Self::GetTask, Self::CompleteTask, Self::IssueCredential, Self::ReturnCredential];

    const fn as_str(self) -> &'static str {
        match self {
            Self::GetTask => "GetTask",
            Self::CompleteTask => "CompleteTask",
            Self::IssueCredential => "IssueCredential",
            Self::ReturnCredential => "ReturnCredential",
        }
    }

    async fn call(self, broker: &Broker, names: &Names, number: u64) -> Result<(), Status> {
        let Names { task, lease } = names.clone();
        let refused = match self {
            Self::GetTask => broker.tasks().get_task(v1::GetTaskRequest { name: task }).await.map(drop),
            Self::CompleteTask => {
                let request = v1::CompleteTaskRequest { name: task, ..v1::CompleteTaskRequest::default() };
                broker.tasks().complete_task(request).await.map(drop)
            }
            Self::IssueCredential => {
                let request_id = format!("curious-{number}");
                broker
                    .credentials()
                    .issue_credential(requests::token(task, request_id, "reports/q3"))
                    .await
                    .map(drop)
            }
            Self::ReturnCredential => {
                let request = v1::ReturnCredentialRequest { lease, ..v1::ReturnCredentialRequest::default() };
                broker.credentials().return_credential(request).await.map(drop)
            }
        };
        match refused {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status),
            Ok(()) => Err(Status::internal("it was answered")),
        }
    }
}

/// Something that may be there.
#[derive(Debug, Clone)]
struct Names {
    task: String,
    lease: String,
}

/// Measures in a folder of its own, which is gone afterwards, and prints what was found.
pub(crate) fn run(settings: &OracleSettings) -> Result<(), Failure> {
    let folder = world::folder(settings.dir.as_deref())?;
    world::make(folder.path())?;
    // Each refusal is on record, however many there are.
    world::limit(folder.path(), &[("denials_recorded_per_minute_max", 1_000_000_000)])?;
    let daemon = Process::daemon(folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(ask(folder.path(), settings.calls))?;
    daemon.stop()?;

    let mut table = String::from(
        "method              |t|  bar        another's    unknown (mean, the slowest tenth left out)\n",
    );
    for Told { method, t, means: [foreign, unknown] } in &told {
        let reached = if t.abs() < T_MAX { "yes" } else { "no" };
        table += &format!(
            "{method:<17} {:>5.2} <{T_MAX:.1} {reached:<3} {foreign:>10.1} µs {unknown:>8.1} µs\n",
            t.abs()
        );
    }
    if settings.json {
        eprint!("{table}");
        println!("{}", serde_json::to_string(&told)?);
    } else {
        print!("{table}");
    }
    Ok(())
}

async fn ask(dir: &Path, calls: u32) -> Result<Vec<Told>, Failure> {
    // What is another's: a task with a lease.
    let orchestrator = world::connect_to_daemon(dir, world::ORCHESTRATOR).await?;
    let owner = world::connect_to_daemon(dir, world::AGENT).await?;
    let task = orchestrator
        .tasks()
        .create_task(requests::task("open".to_owned(), &world::holder(dir)?))
        .await?
        .into_inner();
    let task = task.task.ok_or("no task")?.name;
    let issued = owner
        .credentials()
        .issue_credential(requests::token(task.clone(), "one".to_owned(), "reports/q3"))
        .await?;
    let lease = issued.into_inner().credential.ok_or("no credential")?.lease;
    let foreign = Names { task, lease };
    // What does not exist has the same form.
    let unknown = Names { task: other(&foreign.task)?, lease: other(&foreign.lease)? };
    let sides = [foreign, unknown];

    let (curious, random, mut number) =
        (world::connect_to_daemon(dir, CURIOUS).await?, SystemRandom::new(), 0);
    let mut told = Vec::new();
    for method in Method::ALL {
        let mut samples: [Vec<f64>; 2] = Default::default();
        while samples.iter().any(|samples| samples.len() < usize::try_from(calls).unwrap_or(usize::MAX)) {
            let mut coin = [0];
            random.fill(&mut coin).map_err(|_| "no randomness")?;
            let side = usize::from(coin[0] & 1);
            let (Some(names), Some(samples)) = (sides.get(side), samples.get_mut(side)) else { continue };
            let begun = since_boot();
            method.call(&curious, names, number).await?;
            samples.push((since_boot() - begun).as_secs_f64() * 1e6);
            number += 1;
        }
        let (t, means) = welch(samples);
        told.push(Told { method: method.as_str(), t, means });
    }
    Ok(told)
}

/// The same name but for its last character, which is another of the alphabet.
fn other(name: &str) -> Result<String, Failure> {
    let last = name.chars().next_back().ok_or("an empty name")?;
    let rest = name.strip_suffix(last).ok_or("an empty name")?;
    Ok(format!("{rest}{}", if last == '8' { '4' } else { '8' }))
}

/// Welch's t of two samples without the slowest tenth of both together, and their means.
fn welch(samples: [Vec<f64>; 2]) -> (f64, [f64; 2]) {
    let mut all = samples.concat();
    all.sort_by(f64::total_cmp);
    let longest = all.get(all.len() * 9 / 10).copied().unwrap_or(f64::INFINITY);
    let moments = samples.map(|samples| {
        let kept: Vec<f64> = samples.into_iter().filter(|time| *time < longest).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let [(one, of_one), (other, of_other)] = moments;
    ((one - other) / (of_one + of_other).sqrt(), [one, other])
}
