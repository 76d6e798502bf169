//! What the benchmark found, as a page and as JSON.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    machine::Machine,
    neighbour::Neighbour,
    overload::Overload,
    samples::{Samples, table},
    scale::Scale,
};
use crate::{output::escape_control, table::Table, units::format_bytes};

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    machine: Machine,
    pub(super) measures: Vec<Samples>,
    /// What one sandbox felt of another.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) flows: Vec<Flow>,
    pub(super) rate: Option<Rate>,
    /// Of creations that begin at the same time.
    pub(super) burst: Option<Rate>,
    /// Of commands in sessions.
    pub(super) session_rate: Option<Rate>,
    pub(super) idle: Option<Idle>,
    /// What the number of sandboxes costs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) scales: Vec<Scale>,
    /// What becomes of too much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) overloads: Vec<Overload>,
    /// Requests through a preview, and directly inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) preview_rates: Vec<(&'static str, Rate)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<Sockets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contexts: Option<Contexts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comparison: Option<Comparison>,
}

/// Output of commands that are streamed at once.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    name: &'static str,
    /// Millions of bytes per second, of all of them.
    megabytes_per_second: f64,
    bytes: usize,
    streams: usize,
    failures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// Milliseconds until the last of them had its first byte, and its last.
    slowest_first_ms: f64,
    slowest_ms: f64,
    /// Milliseconds until the first of them was at its end.
    fastest_ms: f64,
    /// The most memory the agent had by then.
    pub(super) agent_peak_bytes: Option<u64>,
    #[serde(skip)]
    took: Duration,
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

/// Memory of idle `WebSockets` through a preview.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sockets {
    pub(super) count: usize,
    pub(super) daemon_bytes: u64,
    pub(super) agent_bytes: u64,
}

/// Memory of idle contexts of Python that have used pandas.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Contexts {
    pub(super) count: usize,
    /// What each has for itself: pages that no other process has.
    pub(super) private_bytes: u64,
}

/// The same job done by others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// One entry per program that is installed, Sandbar's first: it has a network and disk limits, and is
    /// asked over HTTP.
    pub(super) measures: Vec<Samples>,
    /// Programs that are not.
    pub(super) absent: Vec<String>,
}

impl Flow {
    pub(super) fn new(name: &'static str, took: Duration) -> Self {
        Self {
            name,
            megabytes_per_second: 0.0,
            bytes: 0,
            streams: 0,
            failures: 0,
            first_failure: None,
            slowest_first_ms: 0.0,
            slowest_ms: 0.0,
            fastest_ms: f64::INFINITY,
            agent_peak_bytes: None,
            took,
        }
    }

    /// Adds one stream, which ought to have had so many bytes: those it had, the time to the first
    /// of them, and to the last.
    pub(super) fn record(
        &mut self,
        one: anyhow::Result<(usize, Duration, Duration)>,
        expected: usize,
    ) {
        self.streams += 1;
        let one = one.and_then(|(bytes, first, all)| {
            anyhow::ensure!(bytes == expected, "{bytes} bytes came in place of {expected}");
            Ok((first.as_secs_f64() * 1000.0, all.as_secs_f64() * 1000.0))
        });
        match one {
            Ok((first, all)) => {
                self.bytes += expected;
                self.slowest_first_ms = self.slowest_first_ms.max(first);
                self.slowest_ms = self.slowest_ms.max(all);
                self.fastest_ms = self.fastest_ms.min(all);
            }
            Err(error) => {
                self.failures += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
        let bytes = u32::try_from(self.bytes / 1000).map_or(f64::INFINITY, f64::from);
        self.megabytes_per_second = bytes / 1000.0 / self.took.as_secs_f64();
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, megabytes_per_second, failures, .. } = self;
        write!(f, "{name:<20}{megabytes_per_second:.0} MB/s ({failures} failed")?;
        if self.streams > 1 {
            let Self { slowest_first_ms, fastest_ms, slowest_ms, .. } = self;
            write!(
                f,
                "; all had begun after {slowest_first_ms:.0} ms and ended within \
                 {fastest_ms:.0} to {slowest_ms:.0} ms"
            )?;
        }
        if let Some(bytes) = self.agent_peak_bytes {
            write!(f, "; the agent's most memory {}", format_bytes(bytes))?;
        }
        f.write_str(")")
    }
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
            neighbours: Vec::new(),
            flows: Vec::new(),
            rate: None,
            burst: None,
            session_rate: None,
            idle: None,
            scales: Vec::new(),
            overloads: Vec::new(),
            preview_rates: Vec::new(),
            sockets: None,
            contexts: None,
            comparison: None,
        }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What is plotted together.
    pub(super) fn plots(&self) -> Vec<(String, Vec<&Samples>)> {
        let mut plots = vec![("Measures".to_owned(), self.measures.iter().collect::<Vec<_>>())];
        if let Some(others) = &self.comparison {
            let title = "A fresh sandbox, /bin/true in it, everything gone again".to_owned();
            plots.push((title, others.measures.iter().collect()));
        }
        for overload in &self.overloads {
            plots.push((overload.title(), overload.measures().collect()));
        }
        for scale in &self.scales {
            plots.push((scale.title(), scale.rows().collect()));
        }
        plots
    }

    fn own_rates(&self) -> impl Iterator<Item = (&'static str, &Rate)> {
        let rates = [
            ("create and destroy", &self.rate),
            ("create at once", &self.burst),
            ("exec in sessions", &self.session_rate),
        ];
        rates.into_iter().filter_map(|(name, rate)| Some((name, rate.as_ref()?)))
    }

    /// What others did, and what went wrong.
    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let samples = self.all_measures().map(|samples| (samples.name(), samples.first_failure()));
        let flows = self.flows.iter().map(|flow| (flow.name, flow.first_failure.as_deref()));
        for (name, failure) in samples.chain(flows) {
            if let Some(failure) = failure {
                writeln!(f, "{name}: first failure: {}", escape_control(failure))?;
            }
        }
        Ok(())
    }

    /// Those of other programs included.
    pub(super) fn all_measures(&self) -> impl Iterator<Item = &Samples> {
        let others = self.comparison.iter().flat_map(|others| &others.measures);
        let overloads = self.overloads.iter().flat_map(Overload::measures);
        let scales = self.scales.iter().flat_map(Scale::rows);
        self.measures.iter().chain(overloads).chain(scales).chain(others)
    }

    /// True when an attempt of ours failed. Failures of other programs are theirs.
    pub(super) fn has_failures(&self) -> bool {
        let felt = self.neighbours.iter().flat_map(|one| [&one.quiet, &one.loaded]);
        self.measures.iter().chain(felt).any(|samples| samples.failures() > 0)
            || self.flows.iter().any(|flow| flow.failures > 0)
            || self.overloads.iter().any(Overload::has_failures)
            || self.scales.iter().any(Scale::has_failures)
            || self.own_rates().any(|(_, rate)| rate.failures > 0)
            || self.idle.as_ref().is_some_and(|idle| idle.failures > 0)
    }
}

impl Serialize for Neighbour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("load", self.load)?;
        map.serialize_entry("limit", self.limit)?;
        map.serialize_entry("quiet", &self.quiet)?;
        map.serialize_entry("loaded", &self.loaded)?;
        map.serialize_entry("p50Times", &self.ratio(|all| all.p50))?;
        map.serialize_entry("p99Times", &self.ratio(|all| all.p99))?;
        map.end()
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
        if !self.measures.is_empty() {
            writeln!(f, "{}", table("milliseconds", &self.measures))?;
        }
        if !self.neighbours.is_empty() {
            writeln!(f, "{}", beside(&self.neighbours))?;
        }
        for flow in &self.flows {
            writeln!(f, "{flow}")?;
        }
        let previews = self.preview_rates.iter().map(|(name, rate)| (*name, rate));
        for (name, rate) in self.own_rates().chain(previews) {
            let Rate { per_second, count, failures, in_flight } = rate;
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
            None if self.rate.is_some() => {
                writeln!(f, "idle sandbox        not measured: the server is not local")?;
            }
            // Nobody has asked for it.
            None => {}
        }
        for overload in &self.overloads {
            write!(f, "\n{overload}")?;
        }
        for scale in &self.scales {
            write!(f, "\n{scale}")?;
        }
        if let Some(Contexts { count, private_bytes }) = &self.contexts {
            let each = format_bytes(*private_bytes);
            writeln!(
                f,
                "memory of an idle Python context with pandas: {each} of its own, of {count}"
            )?;
        }
        if let Some(Sockets { count, daemon_bytes, agent_bytes }) = &self.sockets {
            writeln!(
                f,
                "idle WebSockets     {} of the daemon, {} of the agent ({count} at once)",
                format_bytes(*daemon_bytes),
                format_bytes(*agent_bytes)
            )?;
        }
        self.write_end(f)
    }
}

/// Execs beside each load, quiet and not, and how many times slower they got.
fn beside(neighbours: &[Neighbour]) -> Table<7> {
    let heading = "exec true, ms, beside";
    let mut table =
        Table::new([heading, " quiet p50", "p99", "loaded p50", "p99", " p50 times", "p99 times"]);
    for neighbour in neighbours {
        let Neighbour { load, limit, quiet, loaded } = neighbour;
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let pair = |samples: &Samples| {
            let summary = samples.summary();
            [summary.map(|all| all.p50), summary.map(|all| all.p99)].map(number)
        };
        let ([quiet50, quiet99], [loaded50, loaded99]) = (pair(quiet), pair(loaded));
        let ratios = [neighbour.ratio(|all| all.p50), neighbour.ratio(|all| all.p99)];
        let [times50, times99] = ratios.map(number);
        let name = format!("{load} ({limit})");
        table.row([name, quiet50, quiet99, loaded50, loaded99, times50, times99]);
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
        report.burst = Some(Rate::new(4, 0, 4, Duration::from_secs(1)));
        report.session_rate = Some(Rate::new(900, 0, 50, Duration::from_secs(3)));
        report.idle = Some(Idle::new(4, 0, 8 << 20));
        let mut flow = Flow::new("2 streams", Duration::from_secs(2));
        let second = Duration::from_secs(1);
        flow.record(Ok((20_000_000, second / 2, second)), 20_000_000);
        flow.record(Ok((1, second, second)), 20_000_000);
        report.flows.push(flow);
        assert!(report.has_failures());
        let page = report.to_string();
        for part in [
            "exec true: first failure: no\\u{1b}",
            "create and destroy  5 per second (10 with 2 in flight",
            "create at once      4 per second (4 with 4 in flight",
            "exec in sessions    300 per second (900 with 50 in flight",
            "2.0 MiB (4 at once",
            "2 streams           10 MB/s (1 failed; all had begun after 500 ms",
            "2 streams: first failure: 1 bytes came in place of 20000000",
        ] {
            assert!(page.contains(part), "{part:?} in\n{page}");
        }
        let wire = serde_json::to_value(&report).unwrap();
        assert_eq!(wire["measures"][1]["failures"], 1);
        assert_eq!(wire["measures"][0]["milliseconds"]["p50"], 2.0);
        assert_eq!(wire["idle"]["bytesPerSandbox"], 2 << 20);
        assert_eq!(wire["flows"][0]["megabytesPerSecond"], 10.0);
    }

    #[test]
    fn nothing_made_is_no_division() {
        assert_eq!(Idle::new(0, 3, 5).bytes_per_sandbox, 0);
    }
}
