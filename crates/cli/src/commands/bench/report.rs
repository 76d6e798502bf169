//! What the benchmark found, as a page and as JSON.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{machine::Machine, samples::Samples};
use crate::{output::escape_control, table::Table, units::format_bytes};

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    machine: Machine,
    pub(super) measures: Vec<Samples>,
    pub(super) rate: Option<Rate>,
    /// Of commands in sessions.
    pub(super) session_rate: Option<Rate>,
    pub(super) idle: Option<Idle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comparison: Option<Comparison>,
}

/// Creations and destructions, or commands, per second.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rate {
    per_second: f64,
    count: usize,
    failures: usize,
    in_flight: usize,
}

/// Memory of idle sandboxes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Idle {
    bytes_per_sandbox: u64,
    sandboxes: usize,
    failures: usize,
}

/// The same job done by others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// One entry per program that is installed.
    pub(super) measures: Vec<Samples>,
    /// Programs that are not.
    pub(super) absent: Vec<String>,
}

impl Rate {
    pub(super) fn new(count: usize, failures: usize, in_flight: usize, took: Duration) -> Self {
        let count_f64 = u32::try_from(count).map_or(f64::INFINITY, f64::from);
        Self { per_second: count_f64 / took.as_secs_f64(), count, failures, in_flight }
    }
}

impl Idle {
    pub(super) fn new(sandboxes: usize, failures: usize, bytes: u64) -> Self {
        let count = u64::try_from(sandboxes).unwrap_or(u64::MAX);
        let bytes_per_sandbox = bytes.checked_div(count).unwrap_or(0);
        Self { bytes_per_sandbox, sandboxes, failures }
    }
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            measures: Vec::new(),
            rate: None,
            session_rate: None,
            idle: None,
            comparison: None,
        }
    }

    /// Those of other programs included.
    pub(super) fn all_measures(&self) -> impl Iterator<Item = &Samples> {
        self.measures.iter().chain(self.comparison.iter().flat_map(|others| &others.measures))
    }

    /// True when an attempt of ours failed. Failures of other programs are theirs.
    pub(super) fn has_failures(&self) -> bool {
        self.measures.iter().any(|samples| samples.failures() > 0)
            || [&self.rate, &self.session_rate].into_iter().flatten().any(|rate| rate.failures > 0)
            || self.idle.as_ref().is_some_and(|idle| idle.failures > 0)
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name())?;
        map.serialize_entry("count", &self.milliseconds().len())?;
        map.serialize_entry("failures", &self.failures())?;
        if let Some(failure) = self.first_failure() {
            map.serialize_entry("firstFailure", failure)?;
        }
        map.serialize_entry("milliseconds", &self.summary())?;
        map.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        write!(f, "{}", table("milliseconds", &self.measures))?;
        writeln!(f)?;
        for (name, rate) in
            [("create and destroy", &self.rate), ("exec in sessions", &self.session_rate)]
        {
            let Some(Rate { per_second, count, failures, in_flight }) = rate else { continue };
            writeln!(
                f,
                "{name:<18}  {per_second:.0} per second \
                 ({count} with {in_flight} in flight, {failures} failed)"
            )?;
        }
        match &self.idle {
            Some(Idle { bytes_per_sandbox, sandboxes, failures }) => writeln!(
                f,
                "idle sandbox        {} ({sandboxes} at once, {failures} failed)",
                format_bytes(*bytes_per_sandbox)
            )?,
            None => writeln!(f, "idle sandbox        not measured: the server is not local")?,
        }
        if let Some(comparison) = &self.comparison {
            writeln!(
                f,
                "\n{}",
                table("run /bin/true, ms", &comparison.measures).to_string().trim_end()
            )?;
            if !comparison.absent.is_empty() {
                writeln!(f, "not installed: {}", comparison.absent.join(", "))?;
            }
        }
        for samples in self.all_measures() {
            if let Some(failure) = samples.first_failure() {
                writeln!(f, "{}: first failure: {}", samples.name(), escape_control(failure))?;
            }
        }
        Ok(())
    }
}

fn table(heading: &str, measures: &[Samples]) -> Table<7> {
    let mut table =
        Table::new([heading, "     p50", "     p90", "     p99", "     max", "runs", "failed"]);
    for samples in measures {
        let number = |value: f64| format!("{value:8.2}");
        let [p50, p90, p99, max] = match samples.summary() {
            Some(s) => [s.p50, s.p90, s.p99, s.max].map(number),
            None => std::array::from_fn(|_| format!("{:>8}", "-")),
        };
        let runs = samples.milliseconds().len() + samples.failures();
        let failed = samples.failures().to_string();
        table.row([samples.name().to_owned(), p50, p90, p99, max, runs.to_string(), failed]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_failed() {
        let mut samples = Samples::new("exec true");
        samples.push(Duration::from_millis(2));
        let mut report = Report::new(Machine::read());
        report.measures.push(samples.clone());
        assert!(!report.has_failures());
        samples.record(std::time::Instant::now(), Err::<(), _>("no\u{1b}"));
        report.measures.push(samples);
        report.rate = Some(Rate::new(10, 0, 2, Duration::from_secs(2)));
        report.session_rate = Some(Rate::new(900, 0, 50, Duration::from_secs(3)));
        report.idle = Some(Idle::new(4, 0, 8 << 20));
        assert!(report.has_failures());
        let page = report.to_string();
        for part in [
            "exec true: first failure: no\\u{1b}",
            "create and destroy  5 per second (10 with 2 in flight",
            "exec in sessions    300 per second (900 with 50 in flight",
            "2.0 MiB (4 at once",
        ] {
            assert!(page.contains(part), "{part:?} in\n{page}");
        }
        let wire = serde_json::to_value(&report).unwrap();
        assert_eq!(wire["measures"][1]["failures"], 1);
        assert_eq!(wire["measures"][0]["milliseconds"]["p50"], 2.0);
        assert_eq!(wire["idle"]["bytesPerSandbox"], 2 << 20);
    }

    #[test]
    fn nothing_made_is_no_division() {
        assert_eq!(Idle::new(0, 3, 5).bytes_per_sandbox, 0);
    }
}
