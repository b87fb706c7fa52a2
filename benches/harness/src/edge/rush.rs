//! Who asks for more than there is: callers that each ask for a credential again as soon as they have one, and that wait
//! as they are told when they are refused.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brevet::clock::since_boot;
use brevet_client::Broker;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::process::obey;
use crate::{Failure, requests, world};

/// Tasks that are drawn on in turn.
const TASKS: u64 = 256;

/// So many callers on so many connections for so long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Rush {
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    pub(super) time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Rushed {
    pub(super) issued: u64,
    pub(super) refused: u64,
    pub(super) time: Duration,
}

impl Rushed {
    pub(super) fn per_second(&self) -> f64 {
        self.issued as f64 / self.time.as_secs_f64()
    }
}

/// Mints over a few connections.
#[derive(Clone)]
pub(super) struct Mints {
    agents: Arc<[Broker]>,
    tasks: Arc<[String]>,
    named: Arc<AtomicU64>,
    /// No other's: an answer that was given before is no new credential.
    name: Arc<str>,
}

impl Mints {
    pub(super) async fn connect(dir: &Path, connections: u64) -> Result<Self, Failure> {
        let name = format!("rush-{}-{}", std::process::id(), since_boot().as_nanos());
        let mut agents = Vec::new();
        for _ in 0..connections {
            agents.push(world::connect_to_daemon(dir, world::AGENT).await?);
        }
        let orchestrator = world::connect_to_daemon(dir, world::ORCHESTRATOR).await?;
        let holder = world::holder(dir)?;
        let mut tasks = Vec::new();
        for number in 0..TASKS {
            let request = requests::task(format!("{name}-{number}"), &holder);
            let answer = orchestrator.tasks().create_task(request).await?.into_inner();
            tasks.push(answer.task.ok_or("no task")?.name);
        }
        Ok(Self { agents: agents.into(), tasks: tasks.into(), named: Arc::default(), name: name.into() })
    }

    /// Mints once, on the connection of this caller, and gives the lease.
    pub(super) async fn mint(&self, caller: u64) -> Result<String, Status> {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        let nothing = || Status::internal("nothing to call");
        let task = requests::turn(&self.tasks, number).ok_or_else(nothing)?.clone();
        let request = requests::token(task, format!("{}-{number}", self.name), "reports/q3");
        let agent = requests::turn(&self.agents, caller).ok_or_else(nothing)?;
        let answer = agent.credentials().issue_credential(request).await?.into_inner();
        Ok(answer.credential.ok_or_else(nothing)?.lease)
    }
}

/// Waits as the daemon says, but not beyond the end.
async fn wait(status: &Status, end: Duration) {
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let told = told.unwrap_or(Duration::from_secs(1));
    tokio::time::sleep(told.min(end.saturating_sub(since_boot()))).await;
}

/// Rushes as ordered until standard input closes.
pub(crate) fn rush(dir: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    obey(|Rush { connections, in_flight, time }| {
        runtime.block_on(async {
            let mints = Mints::connect(dir, connections).await?;
            let end = since_boot() + time;
            let callers: Vec<_> = (0..in_flight)
                .map(|caller| {
                    let mints = mints.clone();
                    tokio::spawn(async move {
                        let (mut issued, mut refused) = (0, 0);
                        while since_boot() < end {
                            match mints.mint(caller).await {
                                Ok(_) if since_boot() > end => {}
                                Ok(_) => issued += 1,
                                Err(status) if status.code() == Code::ResourceExhausted => {
                                    refused += 1;
                                    wait(&status, end).await;
                                }
                                Err(status) => return Err(status),
                            }
                        }
                        Ok((issued, refused))
                    })
                })
                .collect();
            let (mut issued, mut refused) = (0, 0);
            for caller in callers {
                let of_caller: (u64, u64) = caller.await??;
                issued += of_caller.0;
                refused += of_caller.1;
            }
            Ok(Rushed { issued, refused, time })
        })
    })
}
