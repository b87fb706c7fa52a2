//! Overload and floods: B19 and B20.
//!
//! Here the unit is time on the wall, since what is asked is how long an honest caller waits; so each figure is held
//! against the same call on the same machine just before. Who rushes and who floods are processes of their own, and stand
//! behind everybody else for the machine's time, since elsewhere they would have machines of their own; whoever rushes
//! does so at its peak as under overload. What floods has one thread, that is one core at most. The limit of a single
//! caller's rate is set out of the way: it would keep the overload out before it is one.

mod flood;
mod rush;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet::clock::since_boot;
use brevet_api::v1;
use brevet_client::Broker;
use clap::Args;
use serde::Serialize;
use tokio::runtime::Runtime;

pub(crate) use self::flood::flood;
pub(crate) use self::rush::rush;
use self::rush::{Mints, Rush, Rushed};
use crate::process::Process;
use crate::{Failure, world};

/// Calls in flight of which one number gives the most.
const PEAKS_IN_FLIGHT: [u64; 3] = [64, 256, LET_IN];
/// How many times as many calls as the daemon lets in.
const OVERLOAD: u64 = 5;
/// Calls in flight that the daemon lets in of what makes something new: three quarters of the default.
const LET_IN: u64 = 768;
/// Connections of whoever asks for so much: each has as many streams as one may have.
const CONNECTIONS: u64 = OVERLOAD * LET_IN / 128;
/// Between two probes.
const PAUSE: Duration = Duration::from_millis(20);

/// What a run would reach.
const QUOTAS: [&str; 3] =
    ["leases_live_per_task_max", "leases_issued_per_task_max", "leases_live_per_opener_max"];

/// How long it is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct EdgeSettings {
    /// Seconds of overload; the peak is measured as long on either side of it, and each flood a quarter.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=600))]
    seconds: u64,
    /// Rounds; each gives one ratio of each kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=31))]
    rounds: u32,
    /// Print JSON on standard output, and the table on standard error.
    #[arg(long)]
    json: bool,
    /// Where the run's own folder is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was found, in one round or as the median of all.
#[derive(Debug, Clone, Serialize)]
struct Found {
    id: &'static str,
    what: String,
    value: f64,
    /// The least and the most that a round gave.
    range: [f64; 2],
    bar: f64,
    more_is_better: bool,
    /// What was measured and what it is held against, in `unit`.
    sides: [f64; 2],
    unit: &'static str,
}

impl Found {
    /// The ratio of two sides, of which less is better.
    fn new(id: &'static str, what: String, sides: [f64; 2], bar: f64, unit: &'static str) -> Self {
        let [measured, against] = sides;
        let value = measured / against;
        Self { id, what, value, range: [value; 2], bar, more_is_better: false, sides, unit }
    }
}

/// Measures in a folder of its own, which is gone afterwards, and prints what was found.
pub(crate) fn run(settings: &EdgeSettings) -> Result<(), Failure> {
    let folder = world::folder(settings.dir.as_deref())?;
    let dir = folder.path();
    world::make(dir)?;
    // Room for as many leases as a run makes.
    world::limit(dir, &QUOTAS.map(|quota| (quota, 1_000_000_000)))?;
    let daemon = Process::daemon(dir)?;
    // The probe has one thread, or what it waits for its own threads would count as the daemon's time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let time = Duration::from_secs(settings.seconds);
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let mut found = overload(dir, &runtime, time)?;
        found.extend(floods(dir, &runtime, &daemon, time / 4)?);
        rounds.push(found);
    }
    daemon.stop()?;

    let found = medians(rounds)?;
    let mut table =
        String::from("id   median   bar   what, in the median's round (least to most of all rounds)\n");
    for Found {
        id,
        what,
        value,
        range: [least, most],
        bar,
        more_is_better,
        sides: [measured, against],
        unit,
    } in &found
    {
        let (sign, reached) = if *more_is_better { ('≥', value >= bar) } else { ('≤', value <= bar) };
        let reached = if reached { "yes" } else { "no" };
        table += &format!(
            "{id} {value:>7.2} {sign}{bar:>5.2} {reached:<3} {what}: {measured:.1} / {against:.1} {unit} ({least:.2} to {most:.2})\n"
        );
    }
    if settings.json {
        eprint!("{table}");
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{table}");
    }
    Ok(())
}

/// Of each figure the median of all rounds.
fn medians(rounds: Vec<Vec<Found>>) -> Result<Vec<Found>, Failure> {
    let mut figures: Vec<Vec<Found>> = Vec::new();
    for round in rounds {
        figures.resize_with(round.len(), Vec::new);
        figures.iter_mut().zip(round).for_each(|(figure, found)| figure.push(found));
    }
    let median = |mut figure: Vec<Found>| {
        figure.sort_by(|one, other| one.value.total_cmp(&other.value));
        let range = [figure.first()?.value, figure.last()?.value];
        Some(Found { range, ..figure.swap_remove(figure.len() / 2) })
    };
    figures.into_iter().map(|figure| median(figure).ok_or("nothing was measured".into())).collect()
}

fn overload(dir: &Path, runtime: &Runtime, time: Duration) -> Result<Vec<Found>, Failure> {
    let mut rush = Process::start_behind("rush", dir)?;
    let aside = time / 6;
    let calm = |in_flight, time| Rush { connections: CONNECTIONS, in_flight, time };
    // As many in flight as give the most, and as long as under overload: what the disk owes is paid within either.
    let (mut best, mut most) = (LET_IN, 0.0);
    let _warm: Rushed = rush.ask(&calm(LET_IN, aside))?;
    for in_flight in PEAKS_IN_FLIGHT {
        let rushed: Rushed = rush.ask(&calm(in_flight, aside))?;
        if rushed.per_second() > most {
            (best, most) = (in_flight, rushed.per_second());
        }
    }
    let before: Rushed = rush.ask(&calm(best, time))?;
    let mut probe = runtime.block_on(Probe::connect(dir))?;
    // What is revoked under overload was issued before it: the credentials themselves would have to wait.
    let [idle_before, under, idle_after] =
        [aside, time, aside].map(|time| runtime.block_on(probe.leases_for(time)));
    let idle_before = runtime.block_on(probe.revoke_for(aside, idle_before?))?;
    let (under, over) = std::thread::scope(|scope| {
        let rushing = scope.spawn(|| rush.ask(&calm(OVERLOAD * LET_IN, time)));
        let under = under.and_then(|leases| runtime.block_on(probe.revoke_for(time, leases)));
        (under, rushing.join())
    });
    let (under, over): (Vec<Duration>, Rushed) = (under?, over.map_err(|_| "the rush broke off")??);
    let idle_after = runtime.block_on(probe.revoke_for(aside, idle_after?))?;
    drop(probe);
    let after: Rushed = rush.ask(&calm(best, time))?;
    let peak = f64::midpoint(before.per_second(), after.per_second());
    let idle = p99([idle_before, idle_after].concat())?;
    let under = p99(under)?;
    let refused = over.refused as f64 / (over.refused + over.issued).max(1) as f64 * 100.0;
    let what = format!("goodput at {OVERLOAD} times what is let in / peak ({refused:.0} % refused)");
    Ok(vec![
        Found { more_is_better: true, ..Found::new("B19", what, [over.per_second(), peak], 0.85, "mints/s") },
        Found::new("B19", "p99 of a revocation meanwhile / idle".to_owned(), [under, idle], 2.0, "ms"),
    ])
}

fn floods(dir: &Path, runtime: &Runtime, daemon: &Process, time: Duration) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let mut probe = runtime.block_on(Probe::connect(dir))?;
    for kind in flood::Kind::ALL {
        let idle = runtime.block_on(probe.mint_for(time / 2))?;
        let before = resident_mib(daemon)?;
        let mut flood = Process::start_behind("flood", dir)?;
        let (under, sent) = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| flood.ask(&flood::Flood { kind, time }));
            let under = runtime.block_on(probe.mint_for(time));
            (under, flooding.join())
        });
        let sent: u64 = sent.map_err(|_| "the flood broke off")??;
        let grown = (resident_mib(daemon)? - before).max(0.0);
        let (under, idle) = (p99(under?)?, p99(idle)?);
        let per_second = sent as f64 / time.as_secs_f64();
        let (name, all) = (kind.as_str(), format!("{per_second:.0}/s"));
        let what = format!("p99 of a mint under {name} ({all}) / idle");
        found.push(Found::new("B20", what, [under, idle], 2.0, "ms"));
        let what = format!("MiB that {name} make the daemon grow by");
        found.push(Found { value: grown, ..Found::new("B20", what, [before + grown, before], 64.0, "MiB") });
    }
    Ok(found)
}

/// What is resident now.
fn resident_mib(process: &Process) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// The time that all but one in a hundred took at most, in milliseconds.
fn p99(mut times: Vec<Duration>) -> Result<f64, Failure> {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * 99 / 100;
    Ok(times.get(at).ok_or("nothing was measured")?.as_secs_f64() * 1e3)
}

/// An honest caller who looks how long its calls take. Its connections live while its thread has something to do, so it
/// connects anew after a pause.
struct Probe {
    mints: Mints,
    operator: Broker,
}

impl Probe {
    async fn connect(dir: &Path) -> Result<Self, Failure> {
        let operator = world::connect_to_daemon(dir, "operator").await?;
        Ok(Self { mints: Mints::connect(dir, 1).await?, operator })
    }

    /// Mints, one after the other.
    async fn mint_for(&mut self, time: Duration) -> Result<Vec<Duration>, Failure> {
        let (end, mut times) = (since_boot() + time, Vec::new());
        while since_boot() < end {
            let begun = since_boot();
            self.mints.mint(0).await?;
            times.push(since_boot() - begun);
            tokio::time::sleep(PAUSE / 4).await;
        }
        Ok(times)
    }

    /// As many leases as are revoked in this time.
    async fn leases_for(&self, time: Duration) -> Result<Vec<String>, Failure> {
        let mut leases = Vec::new();
        for _ in 0..time.as_millis() / PAUSE.as_millis() + 1 {
            leases.push(self.mints.mint(0).await?);
        }
        Ok(leases)
    }

    /// Revokes leases, one after the other.
    async fn revoke_for(&mut self, time: Duration, leases: Vec<String>) -> Result<Vec<Duration>, Failure> {
        let (end, mut times) = (since_boot() + time, Vec::new());
        for name in leases {
            if since_boot() >= end {
                break;
            }
            let begun = since_boot();
            let request = v1::RevokeLeaseRequest { name, reason: "measured".to_owned() };
            self.operator.leases().revoke_lease(request).await?;
            times.push(since_boot() - begun);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(times)
    }
}
