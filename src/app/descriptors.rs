//! Descriptors: as many as the limits on connections need. Where they run out, nobody can connect any more, not even
//! over the local root socket.

use brevet_core::sabotage;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::StartError;
use crate::config::Config;

/// For files, listeners and whatever a moment needs twice.
const OTHERS: u64 = 128;

/// Raises the limit of the process to what it needs.
///
/// # Errors
/// [`StartError::Descriptors`] if it may not have as many.
pub(super) fn make_room(config: &Config) -> Result<(), StartError> {
    let needed = config.connections_max() + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(StartError::Limit)?;
    if hard < needed {
        return Err(StartError::Descriptors { needed, hard });
    }
    if soft < needed && !sabotage::on("descriptors_run_out") {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(StartError::Limit)?;
    }
    Ok(())
}
