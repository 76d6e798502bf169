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
mod floor;
mod flow;
mod interpreter;
mod lifecycle;
mod machine;
mod measure;
mod neighbour;
mod overload;
mod page;
pub(crate) mod preview;
mod rate;
mod report;
mod rootfs;
mod samples;
mod scale;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use api::{id::ImageRef, sandbox::Sandbox};
use clap::Args;
use client::{Client, ClientError};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use self::{measure::Bench, report::Report, scale::Kind};
use crate::{
    failure::Stop,
    output::{Output, note, print_json, print_text},
    signals::Signals,
};

/// Runs of each measure: enough for a p99 with three samples above it.
const RUNS: usize = 300;

/// Runs with `--quick`: no p99 worth its name, but a first look within seconds.
const QUICK_RUNS: usize = 30;

/// Rising numbers of sandboxes that do nothing, and of stopped ones, unless said otherwise.
const IDLE_COUNTS: &str = "10,100,500,2000";
const STOPPED_COUNTS: &str = "10,1000,10000";

/// Seconds of creating and destroying as fast as it goes, and with fewer runs than usual.
const SUSTAINED_SECS: u64 = 60;
const QUICK_SUSTAINED_SECS: u64 = 1;

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
    /// Measure only what further options ask for.
    #[arg(long)]
    only: bool,
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
    /// Ask for five times as much as the server can do, and measure what it accepts, refuses, and how
    /// soon it has recovered.
    #[arg(long)]
    overload: bool,
    /// Measure memory, and the API beside so many sandboxes that do nothing too. The server has to be
    /// allowed so many (`max_sandboxes`).
    #[arg(long, value_name = "N,...", value_delimiter = ',', num_args = 0..=1,
          default_missing_value = IDLE_COUNTS, value_parser = clap::value_parser!(u32).range(1..))]
    idle: Option<Vec<u32>>,
    /// The same beside so many that are stopped.
    #[arg(long, value_name = "N,...", value_delimiter = ',', num_args = 0..=1,
          default_missing_value = STOPPED_COUNTS, value_parser = clap::value_parser!(u32).range(1..))]
    stopped: Option<Vec<u32>>,
    /// Command that starts the server again, such as "systemctl restart sandbar": measure how long it
    /// takes to come back with those sandboxes.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// Do the same with bwrap, crun, runc, podman and runsc (gVisor), where these are installed (needs root).
    #[arg(long)]
    compare: bool,
    /// Root file system for --compare; the image's own layers unless given.
    #[arg(long, value_name = "DIR", requires = "compare")]
    rootfs: Option<PathBuf>,
    /// Measure nothing but the quickest tenths of a few calls, as multiples of what this machine needs for a
    /// process and a message, and fail where one is grossly over its multiple: within seconds, for tests.
    #[arg(long, conflicts_with_all = ["quick", "runs"])]
    ratios: bool,
    /// Write a page with plots, which a browser shows.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
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
    let samples = arguments.samples.as_deref().map(create).transpose()?;
    let page = arguments.report.as_deref().map(create).transpose()?;
    let runs = match arguments.runs {
        Some(runs) => usize::try_from(runs)?,
        None if arguments.quick => QUICK_RUNS,
        None => RUNS,
    };
    let bench = Bench::new(client.clone(), arguments.image.clone(), runs, out)?;
    if arguments.ratios {
        let measured = signals.unless(bench.ratios()).await;
        signals.unless(tidy(&client, bench.label(), out)).await?;
        let ratios = measured??;
        if out.json {
            print_json(&ratios)?;
        } else {
            print_text(&ratios)?;
        }
        return if ratios.hold() { Ok(ExitCode::SUCCESS) } else { Err(Stop::Reported.into()) };
    }
    let measured = signals.unless(measure(&bench, &arguments)).await;
    // A second signal drops this and ends the program.
    signals.unless(tidy(&client, bench.label(), out)).await?;
    let report = measured??;
    if let Some(file) = samples {
        write_samples(file, &report).context("could not write the samples")?;
    }
    if let Some(mut file) = page {
        let text = page::page(&report);
        file.write_all(text.as_bytes()).context("could not write the page")?;
    }
    if out.json {
        print_json(&report)?;
    } else {
        print_text(&report)?;
    }
    if report.has_failures() { Err(Stop::Reported.into()) } else { Ok(ExitCode::SUCCESS) }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("could not create {}", path.display()))
}

/// All measures, in an order in which the earlier warm what the later need.
async fn measure(bench: &Bench, arguments: &Arguments) -> anyhow::Result<Report> {
    let warm = bench.warm_up().await?;
    let mut report = Report::new(machine::Machine::read());
    if !arguments.only {
        // First: of a minute of creations the kernel gives memory back for as long again.
        report.idle = bench.idle_memory().await?;
        measure_latencies(bench, &warm, &mut report).await?;
    }
    measure_what_is_asked_for(bench, arguments, &mut report).await?;
    if !arguments.only {
        measure_rates(bench, &mut report).await?;
    }
    if arguments.overload {
        report.overloads.extend(bench.overloads().await?);
    }
    let restart = arguments.restart.as_deref();
    for (kind, counts) in [(Kind::Idle, &arguments.idle), (Kind::Stopped, &arguments.stopped)] {
        if let Some(counts) = counts {
            report.scales.push(bench.scale(kind, counts, restart).await?);
        }
    }
    if arguments.compare {
        let mut others = compare::run(bench, &warm.image, arguments.rootfs.as_deref()).await?;
        let once = if arguments.only { bench.create_exec_destroy().await } else { Vec::new() };
        let mut ours = report.measures.iter().chain(&once);
        if let Some(ours) = ours.find(|one| one.name() == measure::WHOLE_LIFE) {
            others.measures.insert(0, ours.named("sandbar"));
        }
        report.comparison = Some(others);
    }
    Ok(report)
}

async fn measure_latencies(
    bench: &Bench,
    warm: &Sandbox,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.measures.append(&mut bench.create_exec_destroy().await);
    report.measures.extend(bench.unhurried(warm.resources.pids).await);
    report.measures.extend(bench.callers().await);
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
    Ok(())
}

async fn measure_what_is_asked_for(
    bench: &Bench,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    if arguments.large_files {
        report.measures.extend(bench.large_files().await?);
    }
    if arguments.checkpoints {
        report.measures.extend(bench.checkpoints().await?);
    }
    if arguments.neighbours {
        report.neighbours = bench.neighbours().await?;
    }
    if arguments.previews {
        let preview::Previews { latency, rates, download, sockets } = bench.previews().await?;
        report.measures.extend(latency);
        report.preview_rates.extend(rates);
        report.flows.push(download);
        report.sockets = sockets;
    }
    Ok(())
}

async fn measure_rates(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.flows.extend(bench.flows().await?);
    let sustained = if bench.runs < RUNS { QUICK_SUSTAINED_SECS } else { SUSTAINED_SECS };
    report.rate = Some(bench.rate(Duration::from_secs(sustained)).await);
    let (burst, rate) = bench.burst().await;
    report.measures.push(burst);
    report.burst = Some(rate);
    report.session_rate = Some(bench.session_rate().await?);
    Ok(())
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
