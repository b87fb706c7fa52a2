//! The threads that the daemon works on: one for whoever may stop others, one for the local root socket, some for
//! everybody, and some for strangers.
//!
//! A stop passes several hands before it is answered: its bytes are read, its call is looked at, its record is written,
//! its answer is sent. On threads that are busy it waits at each of them behind everything that came before, whatever
//! is let in and in whatever order it is let in. So the connections of whoever may pull the emergency stop have a thread
//! of their own, which has next to nothing to do, and the local root socket has another, which no operator can keep busy.
//! Those of everybody else stand behind these, and behind the journal's, for the machine's time (invariant R5).
//!
//! A handshake costs as much as several calls, and anybody may ask for one. So connections are accepted, shake hands and
//! are served over HTTP, where nobody shows who he is, on threads of strangers that stand behind everybody's, and change
//! threads when their handshake is over.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tracing::warn;

/// By how much the threads of everybody are nicer than those of the emergency stop, and strangers' than everybody's
/// (nice(2)).
const NICER: i32 = 5;

/// All of them.
#[derive(Debug)]
pub(crate) struct Threads {
    /// Those that serve everybody: one for each processor.
    pub(crate) everybody: Runtime,
    strangers: Runtime,
    stops: Runtime,
    root: Runtime,
}

/// Where what is for some of them is to be given.
#[derive(Debug, Clone)]
pub struct Handles {
    /// For calls.
    pub everybody: Handle,
    /// For connections of whoever is not known yet.
    pub strangers: Handle,
    /// For whoever may stop others.
    pub stops: Handle,
    /// For the local root socket.
    pub root: Handle,
}

/// Has threads run something for as long as it is waited for. None if it broke off.
pub(crate) async fn run_on<T: Send + 'static>(
    threads: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    // What is in a set ends when the set is dropped.
    let mut there = JoinSet::new();
    there.spawn_on(work, threads);
    match there.join_next().await? {
        Ok(done) => Some(done),
        Err(error) => {
            warn!(%error, "work on other threads broke off");
            None
        }
    }
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// If the system gives no more threads or descriptors.
    pub(crate) fn start() -> io::Result<Self> {
        // On Linux the priority is the thread's alone, and a new thread has that of whoever makes it.
        let own = getpriority_process(None)?;
        let behind = |steps: i32| {
            let nice = own.saturating_add(NICER.saturating_mul(steps));
            move || {
                if let Err(problem) = setpriority_process(None, nice) {
                    warn!(%problem, "a thread could not step back behind those of the emergency stop");
                }
            }
        };
        let threads = |name| {
            let mut builder = Builder::new_multi_thread();
            builder.thread_name(name).enable_all();
            builder
        };
        Ok(Self {
            everybody: threads("everybody").on_thread_start(behind(1)).build()?,
            strangers: threads("strangers").on_thread_start(behind(2)).build()?,
            stops: threads("stops").worker_threads(1).build()?,
            root: threads("root").worker_threads(1).build()?,
        })
    }

    /// All of them.
    pub(crate) fn handles(&self) -> Handles {
        Handles {
            everybody: self.everybody.handle().clone(),
            strangers: self.strangers.handle().clone(),
            stops: self.stops.handle().clone(),
            root: self.root.handle().clone(),
        }
    }
}
