//! What a run found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::Failure;
use crate::machine::Machine;

/// What is to be reached, and what is aimed at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// To reach.
    pub(crate) bar: f64,
    /// To aim at.
    pub(crate) stretch: f64,
}

/// One figure with its spread over the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Measure {
    /// Its name.
    pub(crate) id: &'static str,
    /// What it relates.
    what: &'static str,
    /// The median over the rounds.
    value: f64,
    bar: f64,
    stretch: f64,
    median: f64,
    min: f64,
    max: f64,
    /// What is measured, the median, in `side_unit`; none for a rate.
    measured: Option<f64>,
    /// The floor that it is held against, the median, in `side_unit`; none for a rate.
    floor: Option<f64>,
    side_unit: Option<&'static str>,
    unit: &'static str,
    /// Whether more is better.
    more_is_better: bool,
}

impl Measure {
    /// A ratio of two sides, of which each round gives both in nanoseconds.
    pub(crate) fn ratio(
        id: &'static str,
        what: &'static str,
        bound: Bound,
        side_unit: &'static str,
        sides: impl Iterator<Item = (f64, f64)>,
    ) -> Self {
        let (measured, floor): (Vec<f64>, Vec<f64>) = sides.unzip();
        let ratios = measured.iter().zip(&floor).map(|(measured, floor)| measured / floor);
        Self {
            measured: Some(median(measured.iter().copied()) / 1e3),
            floor: Some(median(floor.iter().copied()) / 1e3),
            side_unit: Some(side_unit),
            ..Self::spread(id, what, bound, "ratio", ratios)
        }
    }

    /// A rate, of which more is better.
    pub(crate) fn rate(
        id: &'static str,
        what: &'static str,
        bound: Bound,
        rates: impl Iterator<Item = f64>,
    ) -> Self {
        Self { more_is_better: true, ..Self::spread(id, what, bound, "1/s", rates) }
    }

    fn spread(
        id: &'static str,
        what: &'static str,
        Bound { bar, stretch }: Bound,
        unit: &'static str,
        values: impl Iterator<Item = f64>,
    ) -> Self {
        let values: Vec<f64> = values.collect();
        let median = median(values.iter().copied());
        Self {
            id,
            what,
            value: median,
            bar,
            stretch,
            median,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            measured: None,
            floor: None,
            side_unit: None,
            unit,
            more_is_better: false,
        }
    }

    fn is_reached(&self) -> bool {
        if self.more_is_better { self.median >= self.bar } else { self.median <= self.bar }
    }
}

/// The middle one of several; of an even number, the mean of the two in the middle. Not a number if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) measures: Vec<Measure>,
    /// Mints of which the journal was found to have the record: all of them.
    pub(crate) mints_recorded: usize,
    /// Policies loaded.
    pub(crate) policies: usize,
    /// The length of a mint's record.
    pub(crate) record_bytes: usize,
    /// The length of a mint's request and answer.
    pub(crate) mint_bytes: [usize; 2],
    /// The length of an introspection's request and answer.
    pub(crate) introspection_bytes: [usize; 2],
}

impl Report {
    /// One line of JSON.
    pub(crate) fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string(self)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, cpu, kernel, fdatasync_p50_micros, load_average } = &self.machine;
        writeln!(
            f,
            "machine     {cores} × {cpu}, Linux {kernel}, fdatasync p50 {fdatasync_p50_micros:.0} µs"
        )?;
        writeln!(f, "load        {load_average:.2} at the start")?;
        if self.machine.was_busy() {
            writeln!(f, "            the machine was busy with something else: expect a wide spread")?;
        }
        let Self { mints_recorded, policies, record_bytes, mint_bytes, introspection_bytes, .. } = self;
        writeln!(
            f,
            "checked     {mints_recorded} mints, each with its durable record; {policies} policies loaded"
        )?;
        let ([asked, answered], [inspected, told]) = (mint_bytes, introspection_bytes);
        writeln!(
            f,
            "bytes       mint {asked} → {answered}, introspection {inspected} → {told}, record {record_bytes}"
        )?;
        writeln!(f)?;
        let (id, median, min, max, bar) = ("id", "median", "min", "max", "bar");
        writeln!(f, "{id:<11} {median:>8} {min:>8} {max:>8} {bar:>9}  {:<4} what", "")?;
        for measure in &self.measures {
            let Measure { id, what, median, min, max, bar, .. } = measure;
            let (sign, digits) = if measure.more_is_better { ("≥", 0) } else { ("≤", 2) };
            let reached = if measure.is_reached() { "yes" } else { "no" };
            write!(
                f,
                "{id:<11} {median:>8.digits$} {min:>8.digits$} {max:>8.digits$} {sign}{bar:>8.digits$}"
            )?;
            write!(f, "  {reached:<4} {what}")?;
            if let (Some(measured), Some(floor), Some(unit)) =
                (measure.measured, measure.floor, measure.side_unit)
            {
                write!(f, ": {measured:.1} / {floor:.1} {unit}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let bound = Bound { bar: 2.0, stretch: 1.0 };
        let rounds = [(10_000.0, 10_000.0), (40_000.0, 20_000.0), (30_000.0, 10_000.0)];
        let measure = Measure::ratio("B0", "what", bound, "µs", rounds.into_iter());
        let found =
            [measure.median, measure.min, measure.max, measure.measured.unwrap(), measure.floor.unwrap()];
        for (found, expected) in found.into_iter().zip([2.0, 1.0, 3.0, 30.0, 10.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        assert!(measure.is_reached());
    }
}
