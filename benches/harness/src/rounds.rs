//! A run: what is measured, in which turns.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::cpu::{Spent, ThreadEnded, float};
use crate::floor::{Forced, Loops};
use crate::load::{Form, Order, Outcome};
use crate::machine::Machine;
use crate::process::{DAEMON, Process};
use crate::report::{Bound, Measure, Report};
use crate::{Failure, Settings, audit, records, world};

/// Calls in flight where throughput is measured.
const IN_FLIGHT: u64 = 64;
/// Tokens that are introspected.
const TOKENS: u64 = 256;
/// How often a round is taken because a thread ended in the one before.
const ATTEMPTS_MAX: u32 = 3;
/// Calls before the first round, so that nothing is done for the first time in it.
const WARM_UP: u64 = 1_000;
/// Turns of a loop in one round.
const SIGNATURES: u64 = 2_000;
const VERIFICATIONS: u64 = 1_000;
const DIGESTS: u64 = 20_000;
const FORCED: u64 = 200;
/// Of a bare write, its share in a commit of sixteen.
const COMMIT_SHARE: f64 = 1.0 / 16.0;

/// What is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subjects {
    /// B1, B5 and B7.
    pub(crate) mint: bool,
    /// B2.
    pub(crate) svid: bool,
    /// B3.
    pub(crate) introspect: bool,
    /// B6.
    pub(crate) journal: bool,
}

/// What one round found, in nanoseconds for one call.
#[derive(Debug, Default)]
struct Round {
    /// CPU of the floor server, for messages as a mint's.
    echo: f64,
    sign: f64,
    verify: f64,
    digest: f64,
    forced: Option<Forced>,
    /// CPU of the daemon, and of its journal's thread.
    mint: Spent,
    /// CPU of the journal's callers.
    callers: f64,
    /// CPU of the floor server, for messages as those of an X.509-SVID's issue.
    echo_of_svid: f64,
    verify_csr: f64,
    leaf: f64,
    svid: f64,
    /// CPU of the floor server, for messages as those of introspection.
    echo_of_introspection: f64,
    known: f64,
    unknown: f64,
    /// Medians on the wall, with one call in flight.
    echo_p50: f64,
    mint_p50: f64,
}

/// Measures in a folder of its own, which is gone afterwards.
pub(crate) fn run(settings: &Settings, subjects: Subjects) -> Result<Report, Failure> {
    let machine = Machine::look()?;
    let folder = world::folder(settings.dir.as_deref())?;
    Run::prepare(&folder, settings.clone(), subjects)?.measure(machine)
}

/// The processes of a run.
struct Run {
    dir: PathBuf,
    settings: Settings,
    subjects: Subjects,
    record: Vec<u8>,
    loops: Loops,
    daemon: Process,
    floor: Process,
    records: Process,
    load: Process,
    /// How large the messages are.
    minted: Outcome,
    certified: Outcome,
    introspected: Outcome,
}

impl Run {
    fn prepare(folder: &TempDir, settings: Settings, subjects: Subjects) -> Result<Self, Failure> {
        let dir = folder.path().to_owned();
        world::make(&dir)?;
        let mut floor = Process::start("floor", &dir)?;
        let url: String = floor.hear()?;
        let connect = Order::Connect { floor: url, connections: settings.connections };

        // A first daemon gives a record to measure the journal with, and stops.
        let daemon = Process::daemon(&dir)?;
        let mut load = Process::start("load", &dir)?;
        let _connected: Outcome = load.ask(&connect)?;
        let _opened: Outcome = load.ask(&Order::Open { mints: IN_FLIGHT })?;
        let _minted: Outcome =
            load.ask(&Order::Mint { form: Form::Token, calls: IN_FLIGHT, in_flight: IN_FLIGHT })?;
        drop(load);
        daemon.stop()?;
        let record = audit::sample(&dir)?;
        fs::write(dir.join(records::SAMPLE), &record)?;
        fs::remove_file(dir.join(brevet_client::endpoints::ENDPOINTS_FILE))?;

        // The second is measured.
        let daemon = Process::daemon(&dir)?;
        let mut load = Process::start("load", &dir)?;
        let _connected: Outcome = load.ask(&connect)?;
        let _opened: Outcome = load.ask(&Order::Open { mints: WARM_UP })?;
        let mint = |form| Order::Mint { form, calls: WARM_UP, in_flight: IN_FLIGHT };
        let minted = load.ask(&mint(Form::Token))?;
        let _completed: Outcome = load.ask(&Order::Complete)?;
        let _opened: Outcome = load.ask(&Order::Open { mints: WARM_UP })?;
        let certified = load.ask(&mint(Form::Svid))?;
        let _completed: Outcome = load.ask(&Order::Complete)?;
        let _kept: Outcome = load.ask(&Order::Keep { tokens: TOKENS })?;
        let introspect = Order::Introspect { calls: WARM_UP, in_flight: IN_FLIGHT, known: true };
        let introspected = load.ask(&introspect)?;
        let records = Process::start("records", &dir)?;
        let loops = Loops::new(&dir)?;
        Ok(Self {
            dir,
            settings,
            subjects,
            record,
            loops,
            daemon,
            floor,
            records,
            load,
            minted,
            certified,
            introspected,
        })
    }

    fn measure(mut self, mut machine: Machine) -> Result<Report, Failure> {
        // The first round is not kept: it warms what the preparation did not.
        let mut rounds = Vec::new();
        for number in 0..=self.settings.rounds {
            eprintln!("round {number} of {}", self.settings.rounds);
            rounds.push(self.whole_round()?);
        }
        rounds.remove(0);
        let Self { dir, subjects, record, daemon, minted, introspected, .. } = self;
        daemon.stop().map_err(|failure| {
            let log = fs::read_to_string(dir.join(format!("{DAEMON}.log"))).unwrap_or_default();
            format!("{failure}: {log}")
        })?;
        let mints_recorded = audit::every_mint_is_recorded(&dir)?;
        let forced = rounds.iter().filter_map(|round| round.forced).map(|forced| forced.wall_p50);
        machine.fdatasync_p50_micros = crate::report::median(forced) / 1e3;
        Ok(Report {
            machine,
            measures: measures(subjects, &rounds),
            mints_recorded,
            policies: world::POLICIES,
            record_bytes: record.len(),
            mint_bytes: [minted.request_bytes, minted.answer_bytes],
            introspection_bytes: [introspected.request_bytes, introspected.answer_bytes],
        })
    }

    /// A round in which no thread ended.
    fn whole_round(&mut self) -> Result<Round, Failure> {
        let mut attempt = 1;
        loop {
            match self.round() {
                Err(failure) if failure.is::<ThreadEnded>() && attempt < ATTEMPTS_MAX => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// One round: each side of each ratio, in turns.
    fn round(&mut self) -> Result<Round, Failure> {
        let mut round = Round::default();
        let (calls, single) = (self.settings.calls, self.settings.single_calls);
        let forced = self.loops.force(&self.record, FORCED)?;
        round.forced = Some(forced);
        if self.subjects.mint || self.subjects.journal {
            let _opened: Outcome = self.load.ask(&Order::Open { mints: calls + single })?;
            let before = self.echo(calls / 2, self.minted)?;
            let order = Order::Mint { form: Form::Token, calls, in_flight: IN_FLIGHT };
            round.mint = spent(&self.daemon, &mut self.load, &order)?;
            round.echo = f64::midpoint(before, self.echo(calls / 2, self.minted)?);
            round.sign = self.loops.sign(self.minted.token_bytes, SIGNATURES)?;
        }
        if self.subjects.mint {
            let Outcome { request_bytes, answer_bytes, .. } = self.minted;
            let echo = Order::Echo { calls: single, in_flight: 1, request_bytes, answer_bytes };
            let echoed: Outcome = self.load.ask(&echo)?;
            round.echo_p50 = float(echoed.p50);
            let minted: Outcome =
                self.load.ask(&Order::Mint { form: Form::Token, calls: single, in_flight: 1 })?;
            round.mint_p50 = float(minted.p50);
        }
        if self.subjects.mint || self.subjects.journal {
            let _completed: Outcome = self.load.ask(&Order::Complete)?;
        }
        if self.subjects.svid {
            let _opened: Outcome = self.load.ask(&Order::Open { mints: calls })?;
            let before = self.echo(calls / 2, self.certified)?;
            let order = Order::Mint { form: Form::Svid, calls, in_flight: IN_FLIGHT };
            round.svid = spent(&self.daemon, &mut self.load, &order)?.total;
            round.echo_of_svid = f64::midpoint(before, self.echo(calls / 2, self.certified)?);
            round.verify_csr = self.loops.verify(self.certified.csr_bytes, VERIFICATIONS)?;
            round.leaf = self.loops.leaf(SIGNATURES)?;
            let _completed: Outcome = self.load.ask(&Order::Complete)?;
        }
        if self.subjects.introspect {
            let before = self.echo(calls / 2, self.introspected)?;
            let known = Order::Introspect { calls, in_flight: IN_FLIGHT, known: true };
            round.known = spent(&self.daemon, &mut self.load, &known)?.total;
            let unknown = Order::Introspect { calls, in_flight: IN_FLIGHT, known: false };
            round.unknown = spent(&self.daemon, &mut self.load, &unknown)?.total;
            round.echo_of_introspection = f64::midpoint(before, self.echo(calls / 2, self.introspected)?);
            round.verify = self.loops.verify(self.minted.token_bytes, VERIFICATIONS)?;
        }
        if self.subjects.journal {
            let order = records::Order { records: calls, in_flight: IN_FLIGHT };
            let Self { records, .. } = self;
            let before = records.usage()?;
            let () = records.ask(&order)?;
            let all = records.usage()?.since(&before)?;
            round.callers = (all.total - all.journal) / float(calls);
            round.digest = Loops::digest(&self.record, DIGESTS)?;
        }
        Ok(round)
    }

    fn echo(&mut self, calls: u64, like: Outcome) -> Result<f64, Failure> {
        let Outcome { request_bytes, answer_bytes, .. } = like;
        let order = Order::Echo { calls, in_flight: IN_FLIGHT, request_bytes, answer_bytes };
        Ok(spent(&self.floor, &mut self.load, &order)?.total)
    }
}

/// What a server uses for one call of an order.
fn spent(server: &Process, load: &mut Process, order: &Order) -> Result<Spent, Failure> {
    let before = server.usage()?;
    let outcome: Outcome = load.ask(order)?;
    let spent = server.usage()?.since(&before)?;
    let calls = float(outcome.calls);
    Ok(Spent { total: spent.total / calls, journal: spent.journal / calls })
}

/// The rounds as ratios.
fn measures(subjects: Subjects, rounds: &[Round]) -> Vec<Measure> {
    let mut measures = Vec::new();
    let mut add = |id, what, bound, unit, sides: &dyn Fn(&Round) -> (f64, f64)| {
        measures.push(Measure::ratio(id, what, bound, unit, rounds.iter().map(sides)));
    };
    let cpu = "µs of server CPU";
    if subjects.mint {
        add("B1", "mint / (echo + sign)", Bound { bar: 1.8, stretch: 1.4 }, cpu, &|it| {
            (it.mint.total, it.echo + it.sign)
        });
        add(
            "B7",
            "mint p50, 1 in flight / (echo + fdatasync)",
            Bound { bar: 1.5, stretch: 1.2 },
            "µs",
            &|it| (it.mint_p50, it.echo_p50 + it.forced.map_or(0.0, |forced| forced.wall_p50)),
        );
    }
    if subjects.svid {
        let bound = Bound { bar: 1.5, stretch: 1.25 };
        add("B2", "X.509-SVID / (echo + verify + leaf)", bound, cpu, &|it| {
            (it.svid, it.echo_of_svid + it.verify_csr + it.leaf)
        });
    }
    if subjects.introspect {
        add("B3", "introspection of a known token / echo", Bound { bar: 1.3, stretch: 1.15 }, cpu, &|it| {
            (it.known, it.echo_of_introspection)
        });
        let bound = Bound { bar: 1.2, stretch: 1.15 };
        add("B3.unknown", "introspection of an unknown token / (echo + verify)", bound, cpu, &|it| {
            (it.unknown, it.echo_of_introspection + it.verify)
        });
    }
    if subjects.journal {
        add(
            "B6",
            "journal / (digest + 1/16 write and fdatasync)",
            Bound { bar: 2.0, stretch: 1.3 },
            cpu,
            &|it| {
                let forced = it.forced.map_or(0.0, |forced| forced.cpu);
                (it.mint.journal + it.callers, it.digest + forced * COMMIT_SHARE)
            },
        );
    }
    if subjects.mint {
        let rate = rounds.iter().map(|round| 1e9 / round.mint.total);
        measures.push(Measure::rate(
            "B5",
            "mints per second of server CPU",
            Bound { bar: 13_000.0, stretch: 18_000.0 },
            rate,
        ));
    }
    measures.sort_by_key(|measure| measure.id);
    measures
}
