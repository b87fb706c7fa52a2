//! What a figure was measured on.

use std::fs;

use serde::Serialize;

use crate::Failure;

/// Above this load average the machine was busy with something else.
const QUIET: f64 = 0.5;

/// The machine and how busy it was when the run began.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// How many CPUs the program may use.
    pub(crate) cores: usize,
    /// The CPU's model.
    pub(crate) cpu: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The median of one write and `fdatasync` of a record, in microseconds of wall-clock time.
    pub(crate) fdatasync_p50_micros: f64,
    /// The load average of the minute before the run.
    pub(crate) load_average: f64,
}

impl Machine {
    /// Asks the kernel; the disk is measured later.
    pub(crate) fn look() -> Result<Self, Failure> {
        let text = fs::read_to_string("/proc/cpuinfo")?;
        let model = text.lines().find(|line| line.starts_with("model name"));
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            fdatasync_p50_micros: 0.0,
            load_average: load.split_whitespace().next().ok_or("no load average")?.parse()?,
        })
    }

    /// Whether something else ran when the run began.
    pub(crate) const fn was_busy(&self) -> bool {
        self.load_average > QUIET
    }
}
