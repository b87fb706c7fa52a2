//! The threads that the daemon works on: one for whoever may stop others, one for the local root socket, and some for
//! everybody.
//!
//! A stop passes several hands before it is answered: its bytes are read, its call is looked at, its record is written,
//! its answer is sent. On threads that are busy it waits at each of them behind everything that came before, whatever
//! is let in and in whatever order it is let in. So the connections of whoever may pull the emergency stop have a thread
//! of their own, which has next to nothing to do, and the local root socket has another, which no operator can keep busy.
//! Those of everybody else stand behind these, and behind the journal's, for the machine's time (invariant R5).

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::warn;

/// By how much the threads of everybody are nicer than the others (nice(2)).
const NICER: i32 = 5;

/// All of them.
#[derive(Debug)]
pub(crate) struct Threads {
    /// Those that serve everybody: one for each processor.
    pub(crate) everybody: Runtime,
    stops: Runtime,
    root: Runtime,
}

/// The threads that are kept for the emergency stop.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// For whoever may stop others.
    pub stops: Handle,
    /// For the local root socket.
    pub root: Handle,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// If the system gives no more threads or descriptors.
    pub(crate) fn start() -> io::Result<Self> {
        // On Linux the priority is the thread's alone, and a new thread has that of whoever makes it.
        let nicer = getpriority_process(None)?.saturating_add(NICER);
        let step_back = move || {
            if let Err(problem) = setpriority_process(None, nicer) {
                warn!(%problem, "a thread could not step back behind those of the emergency stop");
            }
        };
        let one = |name| Builder::new_multi_thread().thread_name(name).worker_threads(1).enable_all().build();
        let everybody = Builder::new_multi_thread()
            .thread_name("everybody")
            .on_thread_start(step_back)
            .enable_all()
            .build()?;
        Ok(Self { everybody, stops: one("stops")?, root: one("root")? })
    }

    /// Those that are kept.
    pub(crate) fn reserved(&self) -> Reserved {
        Reserved { stops: self.stops.handle().clone(), root: self.root.handle().clone() }
    }
}
