//! `sandbar bench`: measures the running server as its users see it, over HTTP.
//!
//! Owns: what is measured and how it is reported. Each sandbox it makes carries a label of this
//! run, and all of them are destroyed at the end, also after a signal.
//!
//! Timings are taken with the monotonic clock, one after the other unless the measure says
//! otherwise, and include the client. A failed attempt is counted, never timed.

mod checkpoint;
mod compare;
mod files;
mod flow;
mod interpreter;
mod lifecycle;
mod machine;
mod measure;
mod neighbour;
pub(crate) mod preview;
mod report;
mod rootfs;
mod samples;

use std::{fs::File, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use api::id::ImageRef;
use clap::Args;
use client::{Client, ClientError};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use self::{measure::Bench, report::Report};
use crate::{
    failure::Stop,
    output::{Output, note, print_json, print_text},
    signals::Signals,
};

/// Runs of each measure: enough for a p99 with three samples above it.
const RUNS: usize = 300;

/// Runs with `--quick`: no p99 worth its name, but a first look within seconds.
const QUICK_RUNS: usize = 30;

/// Sandboxes destroyed at once when tidying up.
const IN_FLIGHT: usize = 8;

/// Arguments of `sandbar bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A tenth of the runs: a first look within seconds.
    #[arg(long, conflicts_with = "runs")]
    quick: bool,
    /// Runs of each measure, and sandboxes at once for the memory of an idle one [default: 300].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
    /// Image of the sandboxes; the server's default unless given.
    #[arg(long)]
    image: Option<ImageRef>,
    /// Measure large files too: 1 GiB written and read, a tree of 100,000 files listed,
    /// packed and unpacked.
    #[arg(long)]
    large_files: bool,
    /// Measure checkpoints and forks of a sandbox with a GiB of changes too.
    #[arg(long)]
    checkpoints: bool,
    /// Measure what a sandbox feels of a neighbour that uses up its share of something too. The image
    /// has to have python3.
    #[arg(long)]
    neighbours: bool,
    /// Measure previews too: latency, requests per second, 1 GiB, many idle sockets. The program that
    /// answers is this binary, which has to run in the image.
    #[arg(long)]
    previews: bool,
    /// Do the same with bwrap, crun, runc and podman, where these are installed (needs root).
    #[arg(long)]
    compare: bool,
    /// Root file system for --compare; the image's own layers unless given.
    #[arg(long, value_name = "DIR", requires = "compare")]
    rootfs: Option<PathBuf>,
    /// Write every single timing to a file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

/// Measures and reports.
pub(crate) async fn run(
    arguments: Arguments,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    client.health().await?;
    // Opened first: a wrong name is better known before the minutes than after.
    let samples = match &arguments.samples {
        Some(path) => Some(
            File::create(path).with_context(|| format!("could not create {}", path.display()))?,
        ),
        None => None,
    };
    let runs = match arguments.runs {
        Some(runs) => usize::try_from(runs)?,
        None if arguments.quick => QUICK_RUNS,
        None => RUNS,
    };
    let bench = Bench::new(client.clone(), arguments.image.clone(), runs, out)?;
    let measured = signals.unless(measure(&bench, &arguments)).await;
    // A second signal drops this and ends the program.
    signals.unless(tidy(&client, bench.label(), out)).await?;
    let report = measured??;
    if let Some(file) = samples {
        write_samples(file, &report).context("could not write the samples")?;
    }
    if out.json {
        print_json(&report)?;
    } else {
        print_text(&report)?;
    }
    if report.has_failures() { Err(Stop::Reported.into()) } else { Ok(ExitCode::SUCCESS) }
}

/// All measures, in an order in which the earlier warm what the later need.
async fn measure(bench: &Bench, arguments: &Arguments) -> anyhow::Result<Report> {
    let image = bench.warm_up().await?;
    let mut report = Report::new(machine::Machine::read());
    let mut once = bench.create_exec_destroy().await;
    report.measures.append(&mut once);
    report.measures.push(bench.exec().await?);
    report.measures.push(bench.session().await?);
    report.measures.push(bench.start().await?);
    report.measures.push(bench.first_byte().await?);
    report.measures.push(bench.keys().await?);
    report.measures.extend(bench.lifecycle().await?);
    let interpreter::Interpreter { measures, contexts } = bench.interpreter().await?;
    report.measures.extend(measures);
    report.contexts = contexts;
    report.measures.extend(bench.files().await?);
    if arguments.large_files {
        report.measures.extend(bench.large_files().await?);
    }
    if arguments.checkpoints {
        report.measures.extend(bench.checkpoints().await?);
    }
    if arguments.neighbours {
        report.neighbours = bench.neighbours().await?;
    }
    report.flows = bench.flows().await?;
    if arguments.previews {
        let preview::Previews { latency, rates, download, sockets } = bench.previews().await?;
        report.measures.extend(latency);
        report.preview_rates.extend(rates);
        report.flows.push(download);
        report.sockets = sockets;
    }
    report.rate = Some(bench.rate().await);
    report.session_rate = Some(bench.session_rate().await?);
    report.idle = bench.idle_memory().await?;
    if arguments.compare {
        report.comparison = Some(compare::run(bench, &image, arguments.rootfs.as_deref()).await?);
    }
    Ok(report)
}

/// Destroys what this run has left.
async fn tidy(client: &Client, label: &str, out: Output) {
    let result = async {
        let left = client.all_sandboxes(Some(label)).await?;
        let mut results = stream::iter(left)
            .map(|sandbox| async move { client.destroy_sandbox(&sandbox.id).await })
            .buffer_unordered(IN_FLIGHT);
        while let Some(result) = results.next().await {
            result?;
        }
        Ok::<(), ClientError>(())
    };
    if let Err(error) = result.await {
        note(out, format_args!("could not destroy all sandboxes with the label {label}: {error}"));
    }
}

fn write_samples(mut file: File, report: &Report) -> std::io::Result<()> {
    for measure in report.all_measures() {
        for milliseconds in measure.milliseconds() {
            writeln!(file, "{}", json!({"measure": measure.name(), "milliseconds": milliseconds}))?;
        }
    }
    file.sync_all()
}
