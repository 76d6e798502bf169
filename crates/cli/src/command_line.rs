//! The command line: every command, in the order a newcomer meets them.

use clap::{Parser, Subcommand};

use crate::commands::{
    bench, completions, config, cp, doctor, down, exec, image, inspect, key, ps, rm, run, serve,
};

/// Run untrusted code in isolated sandboxes on this machine.
///
/// A sandbox is a small Linux of its own: files, processes, network and limits, apart from this
/// machine and from other sandboxes. It is called by an id that you choose, and made when it is
/// first used.
#[derive(Debug, Parser)]
#[command(name = "sandbar", version, after_help = EXAMPLES)]
#[command(max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// Write results on stdout, and errors on stderr, as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Getting started:
  sudo sandbar doctor                        can this machine isolate?
  sudo sandbar serve                         start the server, in a terminal of its own
  sudo sandbar run -- echo hello             one command in a fresh sandbox
  sudo sandbar exec my-box 'pip list'        a command in a sandbox that stays
  sudo sandbar cp data.csv my-box:/workspace/
  sudo sandbar rm my-box

The server is found by itself on its own machine. To reach another, set SANDBAR_URL and SANDBAR_KEY.
Exit codes: run and exec end with the command's own; with 127 when there is no such program, and 125
when Sandbar itself failed. Other commands end with 0, 1 (failed) or 2 (wrong usage).";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command in a fresh sandbox, then destroy the sandbox.
    Run(run::Arguments),
    /// Run a command in a sandbox, which is created when it does not exist.
    Exec(exec::Arguments),
    /// List the sandboxes.
    Ps(ps::Arguments),
    /// Show everything about one sandbox.
    Inspect(inspect::Arguments),
    /// Destroy sandboxes with their processes and files.
    Rm(rm::Arguments),
    /// Copy files between this machine and a sandbox.
    Cp(cp::Arguments),
    /// List and build images, the file systems that sandboxes start from.
    Image(image::Arguments),
    /// Create, list and remove keys: who may call the server, and for what.
    Key(key::Arguments),
    /// Start the server on this machine.
    Serve(serve::Arguments),
    /// Stop the server and end its sandboxes.
    Down(down::Arguments),
    /// Check what this machine offers for isolation.
    Doctor(doctor::Arguments),
    /// Check or print the server's configuration.
    Config(config::Arguments),
    /// Measure the server: creation, exec, files, memory.
    Bench(bench::Arguments),
    /// Print completions for a shell.
    Completions(completions::Arguments),
    /// Print the versions of this program and of the server.
    Version,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    fn parse(arguments: &[&str]) -> Command {
        let all = std::iter::once(&"sandbar").chain(arguments);
        CommandLine::try_parse_from(all).unwrap_or_else(|error| panic!("{error}")).command
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let Command::Run(run) = parse(&["run", "-w", "/tmp", "ls", "--json", "-i", "-w"]) else {
            panic!("not run");
        };
        assert_eq!(run.exec.command, ["ls", "--json", "-i", "-w"]);
        assert_eq!(run.exec.workdir.as_deref(), Some("/tmp"));
        assert!(!run.exec.interactive);

        let Command::Exec(exec) = parse(&["exec", "-i", "box", "--", "cat", "--", "-n"]) else {
            panic!("not exec");
        };
        assert_eq!(exec.id.as_str(), "box");
        assert_eq!(exec.exec.command, ["cat", "--", "-n"]);
        assert!(exec.exec.interactive);
    }

    #[test]
    fn json_is_taken_before_and_after_the_command() {
        for arguments in [["--json", "ps"], ["ps", "--json"]] {
            let all = std::iter::once("sandbar").chain(arguments);
            assert!(CommandLine::try_parse_from(all).unwrap().json);
        }
    }

    #[test]
    fn bad_input_is_refused_before_anything_runs() {
        for arguments in [
            &["exec", "bad id", "ls"][..],
            &["exec", "8080", "ls"],
            &["run"],
            &["exec", "box"],
            &["run", "--memory", "lots", "ls"],
            &["run", "-e", "=x", "ls"],
            &["rm"],
            &["rm", "--all", "box"],
            &["run", "--network", "moon", "ls"],
            &["image", "build", "."],
            &["key", "create"],
            &["key", "create", "a/b"],
            &["key", "create", "ci", "--prefix", "ci"],
            &["key", "create", "ci", "--expires", "soon"],
            &["key", "rm"],
        ] {
            let all = std::iter::once(&"sandbar").chain(arguments);
            let error = CommandLine::try_parse_from(all).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
