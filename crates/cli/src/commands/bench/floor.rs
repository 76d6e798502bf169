//! Figures as multiples of what the machine itself needs for the least that could do it, measured in
//! turns: a slow machine is slow at both. What else a machine does, or its host, only makes a turn take longer,
//! and what takes long is disturbed more often than what does not: so a figure is what the quickest tenth of
//! its turns took at most. What is far beyond its multiple is a gross regression, whatever the machine.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::Context as _;
use api::{file::WriteFile, id::SandboxId};
use serde::Serialize;

use super::{measure::Bench, samples::Samples};
use crate::table::Table;

/// Turns: enough for a tenth of them to be undisturbed, within seconds.
const TURNS: usize = 100;

/// The least that could do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Floor {
    /// A process is cloned, becomes `true`, and ends.
    Process,
    /// A byte goes to another thread through a unix socket, and back.
    Echo,
}

/// What is measured, what it is compared with, and how many times its floor's median its quickest tenth may
/// be: several times what was found with a release build on a quiet machine, where that is little less than
/// the median.
const ROWS: [(&str, Floor, f64); 5] = [
    ("create to first exec result", Floor::Process, 60.0),
    ("destroy", Floor::Process, 50.0),
    ("exec true", Floor::Process, 15.0),
    ("exec echo hi in a session", Floor::Echo, 150.0),
    ("read 1 KiB", Floor::Echo, 100.0),
];

/// All rows, with the samples of their floors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ratios {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    measure: Samples,
    floor: Samples,
    /// How many times the floor's median the measure's quickest tenth is. None without samples of both.
    times: Option<f64>,
    at_most: f64,
}

impl Bench {
    /// All rows, in turns.
    pub(super) async fn ratios(&self) -> anyhow::Result<Ratios> {
        let mut measures = ROWS.map(|(name, ..)| Samples::new(name));
        let mut process = Samples::new("clone, exec true, wait");
        let mut echo = Samples::new("echo through a unix socket");
        let mut socket = Echo::start().context("could not start the echo")?;
        let resident = self.id("ratio", 0)?;
        self.create(&resident).await?;
        self.echo(&resident).await?;
        let content = vec![b'x'; 1024];
        self.client.write_file(&resident, "/tmp/ratio", &WriteFile::default(), content).await?;
        let bar = self.progress("ratios", TURNS);
        for turn in 0..TURNS {
            let begin = Instant::now();
            process.record(begin, run_true());
            let begin = Instant::now();
            echo.record(begin, socket.round());
            self.turn(turn, &resident, &mut measures).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&resident).await?;
        let rows = measures.into_iter().zip(ROWS).map(|(measure, (_, floor, at_most))| {
            let floor = match floor {
                Floor::Process => process.clone(),
                Floor::Echo => echo.clone(),
            };
            Row::new(measure, floor, at_most)
        });
        Ok(Ratios { rows: rows.collect() })
    }

    async fn turn(
        &self,
        turn: usize,
        resident: &SandboxId,
        [first, destroy, exec, session, read]: &mut [Samples; 5],
    ) -> anyhow::Result<()> {
        let id = self.id("turn", turn)?;
        let begin = Instant::now();
        let created = async {
            self.create(&id).await?;
            self.run_true(&id).await
        };
        first.record(begin, created.await);
        let begin = Instant::now();
        destroy.record(begin, self.client.destroy_sandbox(&id).await);
        let begin = Instant::now();
        exec.record(begin, self.run_true(resident).await);
        let begin = Instant::now();
        session.record(begin, self.echo(resident).await);
        let begin = Instant::now();
        read.record(begin, self.client.read_file(resident, "/tmp/ratio").await);
        Ok(())
    }
}

impl Row {
    fn new(measure: Samples, floor: Samples, at_most: f64) -> Self {
        let times = measure.quick().zip(floor.summary()).map(|(quick, floor)| quick / floor.p50);
        Self { measure, floor, times, at_most }
    }

    fn holds(&self) -> bool {
        let failed = self.measure.failures() + self.floor.failures();
        failed == 0 && self.times.is_some_and(|times| times <= self.at_most)
    }
}

impl Ratios {
    /// False when a figure is grossly over its multiple, or a call failed.
    pub(super) fn hold(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "quickest tenth of",
            "      ms",
            "median of",
            "      ms",
            " times",
            "at most",
            "holds",
        ];
        let mut table = Table::new(headings);
        for row in &self.rows {
            let shown = |time: Option<f64>| {
                time.map_or("       -".to_owned(), |time| format!("{time:8.3}"))
            };
            table.row([
                row.measure.name().to_owned(),
                shown(row.measure.quick()),
                row.floor.name().to_owned(),
                shown(row.floor.summary().map(|floor| floor.p50)),
                row.times.map_or("-".to_owned(), |times| format!("{times:6.1}")),
                format!("{:7.0}", row.at_most),
                if row.holds() { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        write!(f, "{table}")?;
        for row in &self.rows {
            if let Some(failure) = row.measure.first_failure() {
                let name = row.measure.name();
                writeln!(f, "{name}: first failure: {}", crate::output::escape_control(failure))?;
            }
        }
        Ok(())
    }
}

/// std starts it with `posix_spawn`, which is `clone(CLONE_VM | CLONE_VFORK)` and exec: nothing that
/// starts a process is quicker.
fn run_true() -> io::Result<()> {
    let status = Command::new("/bin/true").stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// A thread that sends every byte back, until the socket is closed.
struct Echo {
    ours: UnixStream,
    /// Ends when `ours` is dropped.
    _thread: JoinHandle<()>,
}

impl Echo {
    fn start() -> io::Result<Self> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let mut byte = [0];
            while theirs.read_exact(&mut byte).and_then(|()| theirs.write_all(&byte)).is_ok() {}
        })?;
        Ok(Self { ours, _thread: thread })
    }

    fn round(&mut self) -> io::Result<()> {
        let mut byte = [1];
        self.ours.write_all(&byte)?;
        self.ours.read_exact(&mut byte)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(millis: u64) -> Samples {
        let mut samples = Samples::new("x");
        samples.push(Duration::from_millis(millis));
        samples
    }

    #[test]
    fn a_multiple_holds_up_to_its_bound_and_no_failure_does() {
        let row = |measure, at_most| Row::new(measure, of(2), at_most);
        assert!(row(of(20), 10.0).holds());
        assert!(!row(of(21), 10.0).holds());
        assert!(!row(Samples::new("none"), 10.0).holds());
        let mut failed = of(1);
        failed.take(Err("no"));
        assert!(!row(failed, 10.0).holds());
        let ratios = Ratios { rows: vec![row(of(20), 10.0), row(of(21), 10.0)] };
        assert!(!ratios.hold());
        let page = ratios.to_string();
        assert!(page.contains("yes") && page.contains("NO"), "{page}");
    }

    #[test]
    fn the_floors_are_there() {
        run_true().unwrap();
        let mut echo = Echo::start().unwrap();
        for _round in 0..3 {
            echo.round().unwrap();
        }
    }
}
