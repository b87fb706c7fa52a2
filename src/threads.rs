//! The threads that the daemon works on: some for whoever may stop others, and some for everybody.
//!
//! A stop passes several hands before it is answered: its bytes are read, its call is looked at, its record is written,
//! its answer is sent. On threads that are busy it waits at each of them behind everything that came before, whatever
//! is let in and in whatever order it is let in. So the connections of whoever may pull the emergency stop, and the
//! local root socket, have threads of their own, which have next to nothing to do; and those of everybody else stand
//! behind these, and behind the journal's, for the machine's time (invariant R5).

use std::io;

use rustix::process::nice;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

/// By how much the threads of everybody are nicer than the others (nice(2), which on Linux is of the thread alone).
const NICER: i32 = 5;

/// The threads that serve everybody: one for each processor.
///
/// # Errors
/// If the system gives no more threads or descriptors.
pub(crate) fn of_everybody() -> io::Result<Runtime> {
    let step_back = || {
        if let Err(problem) = nice(NICER) {
            warn!(%problem, "a thread could not step back behind those of the emergency stop");
        }
    };
    Builder::new_multi_thread().thread_name("everybody").on_thread_start(step_back).enable_all().build()
}

/// The thread that serves whoever may stop others.
///
/// # Errors
/// If the system gives no more threads or descriptors.
pub(crate) fn of_stops() -> io::Result<Runtime> {
    Builder::new_multi_thread().thread_name("stops").worker_threads(1).enable_all().build()
}
