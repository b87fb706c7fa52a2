//! What a process that holds private keys has the kernel keep from other processes: its memory, while it runs and after
//! it has crashed.

use brevet_core::sabotage;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;

/// The kernel refuses to close the process.
#[derive(Debug, Error)]
#[error("the kernel does not keep this process's memory from others: {measure}")]
pub struct NotHardened {
    measure: &'static str,
    #[source]
    source: Errno,
}

/// Closes the process to all others but root's. It is the first thing that a process does, before it has read a secret:
/// whoever opened its memory earlier would keep it.
///
/// # Errors
/// [`NotHardened`] if the kernel refuses; no key is to be read then.
pub fn harden() -> Result<(), NotHardened> {
    if sabotage::on("processes_are_open") {
        return Ok(());
    }
    let failed = |measure| move |source| NotHardened { measure, source };
    // Not even its own user's processes may trace it or read its memory (ptrace(2), proc(5)), and no core is dumped. A
    // limit alone would not see to that: no limit binds a program that the kernel pipes cores to (core(5)).
    prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))?;
    // A change of user makes a process dumpable anew, by the machine's settings. None is made here; this holds even so.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("RLIMIT_CORE"))?;
    // Nothing that it may be made to execute is more than it is.
    prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))
}
