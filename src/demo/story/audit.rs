//! What was written down: as the auditor lists it, and as the stopped daemon's journal has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brevet_core::fact::DenialCause;
use brevet_core::time::Timestamp;

use super::parties::{Party, unexpected};
use super::{Step, Story};
use crate::clock::Clock;
use crate::demo::audit::{self, Journal};
use crate::demo::message::{Answer, Command, Denial};
use crate::demo::report::Shown;

impl Story {
    /// Yields what the auditor was shown.
    pub(super) async fn denials_listed(&mut self) -> Step<Vec<Denial>> {
        let listed = match self.ask(Party::Operator, &Command::ListDenials).await? {
            Answer::Denials(listed) => listed,
            other => return Err(unexpected("listing denials", &other)),
        };
        // Whoever was told no finds it there: who asked, and why not.
        let mut unseen: Vec<&Denial> = listed.iter().collect();
        for Denial { caller, reason, .. } in &self.denied {
            let found = unseen.iter().position(|listed| {
                listed.reason == *reason && (caller.is_none() || listed.caller == *caller)
            });
            unseen.swap_remove(found.ok_or_else(|| format!("a denial is not listed: {reason}"))?);
        }
        let detail = format!("the auditor sees each of the {} denials that were told", self.denied.len());
        Ok(Shown::new(listed, detail))
    }

    /// Ends what is left and stops the daemon; yields the folder of its state.
    pub(super) async fn stopped(mut self, task: &str) -> Step<PathBuf> {
        self.complete(task).await?;
        self.daemon.take().ok_or("the daemon is down")?.stop().await?;
        Ok(Shown::new(self.dir.join("state"), "the last task completed, the daemon gone"))
    }
}

/// The chain and its checkpoints hold.
pub(super) async fn chain_verified(dir: &Path, state: &Path) -> Step {
    let report = audit::verify(dir, state).await?;
    let (records, vouched) = (report.records, report.vouched());
    if vouched != records {
        return Err(format!("{records} records, of which checkpoints vouch for {vouched}").into());
    }
    let detail = format!("{records} records, all vouched for by {} signed checkpoints", report.checkpoints);
    Ok(Shown::new((), detail))
}

/// The journal names for each denial of policy what determined it, and has no other denials than were listed.
pub(super) fn denials_explained(state: &Path, listed: &[Denial]) -> Step<Journal> {
    let now = Clock::system(Timestamp::EPOCH, Duration::ZERO)?.now().judge;
    let journal = audit::read(state, now)?;
    if journal.denials != listed {
        return Err("the journal has other denials than the auditor was shown".into());
    }
    // Where no policy permits it, there is none to name.
    let is_explained = |denial: &&Denial| {
        let names_none = denial.cause == Some(DenialCause::NoPermit);
        denial.reason != "policy_denied" || denial.policies.is_empty() == names_none
    };
    let (denied_by, denials) = (audit::denied_by(&journal.denials), journal.denials.len());
    if denied_by.is_empty() || !journal.denials.iter().all(|denial| is_explained(&denial)) {
        return Err("a denial is not explained".into());
    }
    let detail = format!("{denials} denials, by policy: {}", denied_by.join(", "));
    Ok(Shown::new(journal, detail))
}

/// No lease lives, and none has outlived its end unrecorded.
pub(super) fn nothing_left(journal: &Journal) -> Step<String> {
    let line = format!("live leases {}, overdue {}", journal.live, journal.overdue);
    if (journal.live, journal.overdue) == (0, 0) && journal.leases > 0 {
        Ok(Shown::new(line.clone(), line))
    } else {
        Err(format!("{line}, of {}", journal.leases).into())
    }
}
