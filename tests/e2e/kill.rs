//! The daemon is killed in the middle of requests, again and again. What its clients were told stays true.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brevet_api::v1;
use brevet_api::v1::task::State;
use brevet_core::fact::Fact;
use brevet_testkit::seed::Seed;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::world::{AGENT, Client, ORCHESTRATOR, RESOURCE_SERVER, World, claims, issue};

/// How many kills; CI asks for more by this variable.
const KILLS_VARIABLE: &str = "BREVET_KILLS";
const KILLS: usize = 20;
const CLIENTS: usize = 8;
/// The daemon is killed at most so long after a request's first byte was sent.
const DELAY_MICROS: u64 = 12_000;

/// What one client was told, in a file of its own.
struct Notebook(File);

impl Notebook {
    fn open(path: &Path) -> Self {
        Self(File::options().create(true).append(true).open(path).unwrap())
    }

    fn note(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Requests whose first byte was sent and whose reply did not come.
#[derive(Default)]
struct Pending {
    count: AtomicUsize,
    begun: Notify,
    answered: Notify,
}

impl Pending {
    async fn until<T>(&self, call: impl Future<Output = T>) -> T {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.begun.notify_one();
        let answer = call.await;
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.answered.notify_one();
        answer
    }
}

/// Opens tasks, issues credentials and ends tasks until the daemon is gone, and notes every answer.
async fn work(
    name: String,
    orchestrator: Client,
    agent: Client,
    template: v1::CreateTaskRequest,
    mut notebook: Notebook,
    pending: Arc<Pending>,
    mut seed: Seed,
) {
    for turn in 0.. {
        let request = v1::CreateTaskRequest { request_id: format!("{name}-{turn}"), ..template.clone() };
        let Ok(opened) = pending.until(orchestrator.create(request)).await.result() else { return };
        let task = opened.task.unwrap().name;
        notebook.note(&format!("opened {task}"));
        for number in 0..=seed.below(4) {
            let request = issue(&task, &format!("{name}-{turn}-{number}"));
            let Ok(issued) = pending.until(agent.issue(request)).await.result() else { return };
            notebook.note(&format!("issued {task} {}", issued.credential.unwrap().token));
        }
        let ended = match seed.below(4) {
            0 => continue,
            1 => pending.until(orchestrator.fail(&task)).await.result().map(drop),
            2 => pending.until(agent.complete(&task)).await.result().map(drop),
            _ => pending.until(orchestrator.complete(&task)).await.result().map(drop),
        };
        if ended.is_err() {
            return;
        }
        notebook.note(&format!("ended {task}"));
    }
}

/// What all clients were told.
#[derive(Default)]
struct Told {
    opened: BTreeSet<String>,
    issued: BTreeSet<(String, String)>,
    ended: BTreeSet<String>,
}

impl Told {
    fn read(files: &[PathBuf]) -> Self {
        let mut told = Self::default();
        for file in files {
            for line in fs::read_to_string(file).unwrap().lines() {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["opened", task] => drop(told.opened.insert(task.to_owned())),
                    ["issued", task, token] => drop(told.issued.insert((task.to_owned(), token.to_owned()))),
                    ["ended", task] => drop(told.ended.insert(task.to_owned())),
                    _ => panic!("{line}"),
                }
            }
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_l2_t1_u1_kills_leave_no_credential_without_a_lease_and_undo_no_ending() {
    let mut seed = Seed::of("cargo test -p brevet --test e2e kill");
    let kills = std::env::var(KILLS_VARIABLE).ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let mut world = World::start();
    let files: Vec<_> = (0..CLIENTS).map(|client| world.path(&format!("client-{client}.txt"))).collect();
    let mut in_flight = 0;
    for kill in 0..kills {
        let pending = Arc::new(Pending::default());
        let mut clients = JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push((world.client(ORCHESTRATOR).await, world.client(AGENT).await));
        }
        for ((orchestrator, agent), (number, file)) in connections.into_iter().zip(files.iter().enumerate()) {
            let template = world.create("");
            let name = format!("kill-{kill}-{number}");
            let notebook = Notebook::open(file);
            clients.spawn(work(
                name,
                orchestrator,
                agent,
                template,
                notebook,
                Arc::clone(&pending),
                seed.fork(),
            ));
        }
        // From the first byte of some request on, any moment may be the last; so may the one in which another client
        // has just been told something.
        for _ in 0..=seed.below(60) {
            pending.begun.notified().await;
        }
        if seed.below(2) == 0 {
            tokio::time::sleep(Duration::from_micros(seed.below(DELAY_MICROS))).await;
        } else {
            pending.answered.notified().await;
        }
        in_flight += pending.count.load(Ordering::SeqCst);
        world.daemon.kill();
        clients.join_all().await;
        world.daemon.restart();
    }
    assert!(in_flight >= kills, "of {kills} kills, {in_flight} requests were in flight");

    // The living broker agrees with what it told before it was killed.
    let told = Told::read(&files);
    println!(
        "{kills} kills: {} tasks opened, {} credentials received, {} endings acknowledged, {in_flight} in flight",
        told.opened.len(),
        told.issued.len(),
        told.ended.len()
    );
    assert!(told.issued.len() > kills && told.ended.len() > kills / 2);
    let (orchestrator, server) = (world.client(ORCHESTRATOR).await, world.client(RESOURCE_SERVER).await);
    for task in &told.opened {
        let state = orchestrator.get(task).await.ok().state();
        // An ending that was not acknowledged may have been recorded all the same.
        assert!(
            !told.ended.contains(task) || matches!(state, State::Completed | State::Failed),
            "{task} {state:?}"
        );
    }
    for (task, token) in &told.issued {
        let lives = orchestrator.get(task).await.ok().state() == State::Active;
        assert_eq!(server.is_active(token).await, lives, "{task}");
    }
    drop((orchestrator, server));

    // And so does its journal.
    let journal = world.stop();
    let leases: BTreeSet<String> = journal
        .iter()
        .filter_map(|written| match &written.fact {
            Fact::LeaseIssued { terms, .. } => Some(terms.id.key.to_string()),
            _ => None,
        })
        .collect();
    let without = told
        .issued
        .iter()
        .filter(|(_, token)| !leases.contains(claims(token)["jti"].as_str().unwrap()))
        .count();
    let ended: BTreeSet<String> = journal
        .iter()
        .filter_map(|written| match &written.fact {
            Fact::TaskEnded { task, .. } => Some(task.name()),
            _ => None,
        })
        .collect();
    let undone = told.ended.difference(&ended).count();
    assert_eq!((without, undone), (0, 0), "credentials without a lease, acknowledged endings undone");
}
