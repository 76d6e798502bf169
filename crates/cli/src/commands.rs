//! The commands: one file each. This page says which run where.

pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod checkpoint;
pub(crate) mod code;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod git;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod kill;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod port_forward;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod repl;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod set;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod webhook;

use std::process::ExitCode;

use anyhow::Context as _;
use api::id::SandboxId;
use client::{Client, ClientError};

use crate::{
    command_line::{Command, CommandLine},
    failure::{FAILED, NOT_RUN, report},
    output::Output,
    signals::Signals,
};

/// Does what the command line says and gives the process's exit code.
pub(crate) fn run(line: CommandLine) -> ExitCode {
    let out = Output { json: line.json };
    let failed = match line.command {
        Command::Run(_)
        | Command::Exec(_)
        | Command::Repl(_)
        | Command::Shell(_)
        | Command::Wait(_) => NOT_RUN,
        _ => FAILED,
    };
    dispatch(line.command, out).unwrap_or_else(|error| report(&error, out.json, failed))
}

fn dispatch(command: Command, out: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => wait(|signals| run::run(arguments, out, signals)),
        Command::Exec(arguments) => wait(|signals| exec::run(arguments, out, signals)),
        Command::Repl(arguments) => wait(|signals| repl::run(arguments, out, signals)),
        Command::Shell(arguments) => wait(|signals| shell::run(arguments, out, signals)),
        Command::Start(arguments) => wait(|signals| until(signals, start::run(arguments, out))),
        Command::Logs(arguments) => wait(|signals| until(signals, logs::run(arguments, out))),
        Command::Wait(arguments) => wait(|signals| until(signals, wait::run(arguments, out))),
        Command::Kill(arguments) => wait(|signals| until(signals, kill::run(arguments, out))),
        Command::Ps(arguments) => wait(|signals| until(signals, ps::run(arguments, out))),
        Command::Inspect(arguments) => wait(|signals| until(signals, inspect::run(arguments, out))),
        Command::Set(arguments) => wait(|signals| until(signals, set::run(arguments, out))),
        Command::Prune(arguments) => wait(|signals| until(signals, prune::run(arguments, out))),
        Command::Freeze(arguments) => change(lifecycle::Change::Freeze, arguments, out),
        Command::Thaw(arguments) => change(lifecycle::Change::Thaw, arguments, out),
        Command::Stop(arguments) => change(lifecycle::Change::Stop, arguments, out),
        Command::Checkpoint(arguments) => {
            wait(|signals| until(signals, checkpoint::run(arguments, out)))
        }
        Command::Restore(arguments) => {
            wait(|signals| until(signals, checkpoint::restore(arguments, out)))
        }
        Command::Diff(arguments) => wait(|signals| until(signals, diff::run(arguments, out))),
        Command::Fork(arguments) => {
            wait(|signals| until(signals, checkpoint::fork(arguments, out)))
        }
        Command::Events(arguments) => wait(|signals| until(signals, events::run(arguments, out))),
        Command::Network(arguments) => wait(|signals| until(signals, network::run(arguments, out))),
        Command::Rm(arguments) => wait(|signals| until(signals, rm::run(arguments, out))),
        Command::Cp(arguments) => wait(|signals| until(signals, cp::run(arguments, out))),
        Command::Cat(arguments) => wait(|signals| until(signals, cat::run(arguments))),
        Command::Ls(arguments) => wait(|signals| until(signals, ls::run(arguments, out))),
        Command::Watch(arguments) => wait(|signals| until(signals, watch::run(arguments, out))),
        Command::Git(arguments) => wait(|signals| until(signals, git::run(arguments, out))),
        Command::Service(arguments) => wait(|signals| until(signals, service::run(arguments, out))),
        Command::Session(arguments) => wait(|signals| until(signals, session::run(arguments, out))),
        Command::Env(arguments) => wait(|signals| until(signals, env::run(arguments, out))),
        Command::Port(arguments) => wait(|signals| until(signals, port::run(arguments, out))),
        Command::PortForward(arguments) => {
            wait(|signals| until(signals, port_forward::run(arguments, out)))
        }
        Command::Image(arguments) => wait(|signals| until(signals, image::run(arguments, out))),
        Command::Key(arguments) => wait(|signals| until(signals, key::run(arguments, out))),
        Command::Webhook(arguments) => wait(|signals| until(signals, webhook::run(arguments, out))),
        Command::Version => wait(|signals| until(signals, version::run(out))),
        Command::Bench(arguments) => wait(|signals| bench::run(arguments, out, signals)),
        Command::BenchInside(arguments) => {
            wait(|signals| until(signals, bench::preview::inside(arguments)))
        }
        // These start processes that must have no threads before them, so no runtime exists yet.
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Down(arguments) => down::run(&arguments, out),
        Command::Doctor(arguments) if arguments.attack => {
            wait(|signals| doctor::attack::run(arguments.image, out, signals))
        }
        Command::Doctor(arguments) => doctor::run(&arguments, out),
        Command::Config(arguments) => config::run(&arguments, out),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

fn change(
    change: lifecycle::Change,
    arguments: lifecycle::Arguments,
    out: Output,
) -> anyhow::Result<ExitCode> {
    wait(|signals| until(signals, lifecycle::run(change, arguments, out)))
}

/// Runs a command on a runtime of its own thread. What still blocks at the end (a read of a
/// terminal, a write to a full pipe) is left behind, not waited for.
fn wait<F>(command: impl FnOnce(Signals) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let signals = Signals::listen().context("could not take over the signals")?;
        Box::pin(command(signals)).await
    });
    runtime.shutdown_background();
    result
}

/// A runtime of the calling thread.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the asynchronous runtime")
}

/// Fails for a sandbox that is not there: asking it anything would make one.
async fn require_sandbox(client: &Client, id: &SandboxId) -> Result<(), ClientError> {
    client.sandbox(id).await.map(drop)
}

/// A command that a signal ends at once, leaving nothing to tidy up.
async fn until(
    mut signals: Signals,
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    signals.unless(command).await?
}
