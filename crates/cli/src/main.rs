//! The binary `sandbar`: keeper, launcher, builder, agent, server and command line in one file.
//!
//! The first argument decides. The launcher must start single-threaded and the agent with nothing
//! but what it inherits, so both are told apart before anything else runs.

#![forbid(unsafe_code)]

mod command_line;
mod commands;
mod failure;
mod output;
mod random;
mod sandbox_path;
mod signals;
mod table;
mod units;

use std::{env, process::ExitCode};

use clap::Parser;

use command_line::CommandLine;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "__launcher" {
        return jail::launcher_main();
    }
    if first == "__keeper" {
        return jail::keeper_main();
    }
    if first == "__builder" {
        return jail::builder_main(image::builder_main);
    }
    if first == "__agent" {
        let handoff = arguments.next().unwrap_or_default();
        return agent::main(&handoff.to_string_lossy());
    }
    if first == agent::warm::ARGUMENT {
        return agent::warm::main();
    }
    commands::run(CommandLine::parse())
}
