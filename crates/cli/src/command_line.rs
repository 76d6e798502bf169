//! The command line: every command, in the order a newcomer meets them.

use clap::{Parser, Subcommand};

use crate::commands::{
    bench, cat, checkpoint, completions, config, cp, diff, doctor, down, env, events, exec, git,
    image, inspect, key, kill, lifecycle, logs, ls, network, port, port_forward, prune, ps, repl,
    rm, run, serve, service, session, set, shell, start, wait, watch, webhook,
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
  sudo sandbar doctor --attack               does a sandbox of the running server hold?
  sudo sandbar serve                         start the server, in a terminal of its own
  sudo sandbar run -- echo hello             one command in a fresh sandbox
  sudo sandbar run analysis.py               a script of this machine, in a fresh sandbox
  sudo sandbar exec my-box 'pip list'        a command in a sandbox that stays
  sudo sandbar start my-box -- python3 -m http.server
  sudo sandbar shell my-box                  a terminal in it
  sudo sandbar exec -s dev my-box 'cd /tmp'  a command in a shell that stays
  sudo sandbar port expose my-box 8000       a URL for what listens in it
  sudo sandbar cp data.csv my-box:/workspace/
  sudo sandbar checkpoint create my-box      keep its files as they are now
  sudo sandbar fork my-box -n 3              three sandboxes with its files
  sudo sandbar rm my-box

The server is found by itself on its own machine. To reach another, set SANDBAR_URL and SANDBAR_KEY.
Exit codes: run, exec, shell, repl and wait end with the command's own; with 127 when there is no such
program, and 125 when Sandbar itself failed. Other commands end with 0, 1 (failed) or 2 (wrong usage).";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command, or a script of this machine, in a fresh sandbox, then destroy the sandbox.
    Run(run::Arguments),
    /// Run a command in a sandbox, which is created when it does not exist.
    Exec(exec::Arguments),
    /// Speak a language line by line, in a context that keeps what was said.
    Repl(repl::Arguments),
    /// Open a terminal in a sandbox, which is created when it does not exist.
    Shell(shell::Arguments),
    /// Start a process that runs on by itself in a sandbox, and print its id; or a sandbox.
    Start(start::Arguments),
    /// Show what a process has written.
    Logs(logs::Arguments),
    /// Wait for a process: its end, a line of its output, a port.
    Wait(wait::Arguments),
    /// End processes with everything they started.
    Kill(kill::Arguments),
    /// List the sandboxes, or the processes of one.
    Ps(ps::Arguments),
    /// Show everything about one sandbox.
    Inspect(inspect::Arguments),
    /// Change what becomes of a sandbox that nobody uses, its time to live, its labels.
    Set(set::Arguments),
    /// Stop every process of sandboxes where it is; the next use lets them go on.
    Freeze(lifecycle::Arguments),
    /// Let frozen sandboxes go on.
    Thaw(lifecycle::Arguments),
    /// End the processes of sandboxes, and keep their files.
    Stop(lifecycle::Arguments),
    /// Keep the files of sandboxes as they are: make, list and remove checkpoints.
    Checkpoint(checkpoint::Arguments),
    /// Bring the files of a sandbox back to a checkpoint. Its processes end.
    Restore(checkpoint::RestoreArguments),
    /// Make sandboxes with the files of another, at once whatever their size.
    Fork(checkpoint::ForkArguments),
    /// Show what differs between the files of a sandbox and its image, or a checkpoint.
    Diff(diff::Arguments),
    /// Show what happened to sandboxes and why, and what happens.
    Events(events::Arguments),
    /// Show or change what a sandbox may reach.
    Network(network::Arguments),
    /// Destroy sandboxes with their processes and files.
    Rm(rm::Arguments),
    /// Destroy sandboxes that are stopped or have failed.
    Prune(prune::Arguments),
    /// Copy files between this machine and a sandbox.
    Cp(cp::Arguments),
    /// Print files of a sandbox.
    Cat(cat::Arguments),
    /// List a directory of a sandbox.
    Ls(ls::Arguments),
    /// Show what changes in a sandbox's files, as it changes.
    Watch(watch::Arguments),
    /// Check a git repository out in a sandbox.
    Git(git::Arguments),
    /// List, add and remove the services of a sandbox: programs that run whenever it does.
    Service(service::Arguments),
    /// List, make and end the sessions of a sandbox: shells that keep their state.
    Session(session::Arguments),
    /// Show, set and unset the variables of a sandbox or a session.
    Env(env::Arguments),
    /// Give ports of a sandbox URLs, list them, take them away.
    Port(port::Arguments),
    /// Make TCP ports of a sandbox ports of this machine.
    PortForward(port_forward::Arguments),
    /// List and build images, the file systems that sandboxes start from.
    Image(image::Arguments),
    /// Create, list and remove keys: who may call the server, and for what.
    Key(key::Arguments),
    /// Create, list, test and remove webhooks: events sent to a URL, signed, until they are taken.
    Webhook(webhook::Arguments),
    /// Start the server on this machine.
    Serve(serve::Arguments),
    /// Stop the server and end its sandboxes.
    Down(down::Arguments),
    /// Check what this machine offers for isolation, or attack a sandbox on it.
    Doctor(doctor::Arguments),
    /// Check or print the server's configuration.
    Config(config::Arguments),
    /// Measure the server: creation, exec, terminals, files, memory.
    Bench(bench::Arguments),
    /// What `bench --previews` runs in a sandbox.
    #[command(hide = true)]
    BenchInside(bench::preview::Inside),
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
            &["shell"][..],
            &["shell", "box", "--terminal", "1"],
            &["exec", "bad id", "ls"],
            &["exec", "8080", "ls"],
            &["run"],
            &["exec", "box"],
            &["run", "--memory", "lots", "ls"],
            &["run", "-e", "=x", "ls"],
            &["repl"],
            &["repl", "cobol"],
            &["rm"],
            &["rm", "--all", "box"],
            &["run", "--network", "moon", "ls"],
            &["run", "--network", "a.com:http", "ls"],
            &["network", "box", "moon"],
            &["image", "build", "."],
            &["cat"],
            &["cat", "box"],
            &["cat", "box:file"],
            &["ls"],
            &["ls", "box:dir"],
            &["start", "box", "--id", "web"],
            &["freeze"],
            &["set"],
            &["set", "box", "--sleep-after", "soon"],
            &["set", "box", "--on-idle", "explode"],
            &["set", "box", "--label", "x"],
            &["prune", "--unused", "x"],
            &["stop"],
            &["start", "box", "--id", "8080", "--", "ls"],
            &["kill", "box"],
            &["kill", "box", "--all", "web"],
            &["kill", "-s", "NOPE", "box", "web"],
            &["wait", "box", "web", "--port", "80", "--log", "x"],
            &["ps", "box", "--label", "a"],
            &["exec", "--session", "bad id", "box", "ls"],
            &["session", "rm", "box"],
            &["env", "box", "=x"],
            &["port"],
            &["port", "expose", "box"],
            &["port", "expose", "box", "65536"],
            &["port", "expose", "box", "8080", "--token", "NO"],
            &["port", "expose", "box", "8080", "--token", "a", "--public"],
            &["port-forward", "box"],
            &["port-forward", "box", "x"],
            &["checkpoint"],
            &["checkpoint", "create"],
            &["checkpoint", "rm", "box"],
            &["restore", "box"],
            &["diff"],
            &["diff", "box", "--against", "/"],
            &["fork"],
            &["fork", "box", "one", "-n", "2"],
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
