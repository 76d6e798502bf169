//! From a request to a program on a terminal of its own.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorCode},
    exec::Command,
    id::TerminalId,
    limit::TERMINAL_SIDE,
    terminal::CreateTerminal,
};
use sys::spawn::Spawn;

use super::{
    follow,
    pty::Pty,
    state::{Size, Terminal},
};
use crate::{
    file,
    init::Agent,
    process::{self, Child, StartError, Surroundings},
};

/// The size of a terminal that nobody gave one: that of the first screens, as everywhere.
const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };

/// What every terminal here is taken for: what browsers' terminals and people's own understand.
const TERM: &str = "xterm-256color";

/// A checked request.
struct Plan {
    programs: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
    cwd: OwnedFd,
    size: Size,
}

/// Starts what `request` asks for and puts it into the sandbox's table.
pub(super) async fn start(
    agent: &Arc<Agent>,
    request: CreateTerminal,
) -> Result<Arc<Terminal>, ApiError> {
    let (id, session) = (request.id.clone(), request.session.clone());
    let command = request.command.clone();
    let surroundings = process::surroundings(agent, session.as_ref()).await?;
    let plan = check(surroundings, request)?;
    let shown = match command {
        Some(Command::Shell(text)) => text,
        Some(Command::Program(argv)) => argv.join(" "),
        None => process::shell().to_owned(),
    };
    agent.terminals.add(id, |id: TerminalId, number| {
        let pty = Pty::open(plan.size.cols, plan.size.rows).map_err(|fault| no_terminal(&fault))?;
        let (pid, child) =
            spawn(agent, &plan, &pty).map_err(|fault| process::not_started(&fault))?;
        let terminal = Arc::new(Terminal::new((id, number), (shown, session), pid, plan.size, pty));
        agent.tasks.spawn(follow::follow(Arc::clone(agent), Arc::clone(&terminal), child));
        Ok(terminal)
    })
}

fn check(surroundings: Surroundings, request: CreateTerminal) -> Result<Plan, ApiError> {
    let Surroundings { mut env, cwd } = surroundings;
    env.insert("TERM".to_owned(), TERM.to_owned());
    let env = process::environment(&env, request.env)?;
    let argv = match request.command {
        Some(command) => process::argv(command)?,
        None => vec![process::shell().to_owned()],
    };
    let path = env.get("PATH").map(String::as_str);
    let programs = process::programs(argv.first().map_or("", String::as_str), path);
    let all = |texts: Vec<String>| -> Result<Vec<_>, _> {
        texts.into_iter().map(process::c_string).collect()
    };
    Ok(Plan {
        programs: all(programs)?,
        argv: all(argv)?,
        envp: all(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())?,
        cwd: file::open_directory(&cwd, request.cwd.as_deref().unwrap_or("."))?,
        size: size(request.cols, request.rows)?.unwrap_or(DEFAULT_SIZE),
    })
}

/// The size that a request names, if it names one; what it leaves out is the default.
pub(super) fn size(cols: Option<u16>, rows: Option<u16>) -> Result<Option<Size>, ApiError> {
    let side = |name: &str, given: Option<u16>, default: u16| match given {
        Some(side) if !(1..=TERMINAL_SIDE).contains(&side) => {
            let text = format!("{name} is from 1 to {TERMINAL_SIDE}");
            let error = ApiError::new(ErrorCode::ValidationFailed, text);
            Err(error.with("field", name).with("limit", TERMINAL_SIDE))
        }
        given => Ok(given.unwrap_or(default)),
    };
    let size = Size {
        cols: side("cols", cols, DEFAULT_SIZE.cols)?,
        rows: side("rows", rows, DEFAULT_SIZE.rows)?,
    };
    Ok((cols.is_some() || rows.is_some()).then_some(size))
}

fn no_terminal(fault: &std::io::Error) -> ApiError {
    let text = format!("cannot make a terminal: {fault}; end programs that have terminals");
    let error = ApiError::new(ErrorCode::CommandExecutionError, text);
    error.with("errno", fault.raw_os_error())
}

fn spawn(agent: &Agent, plan: &Plan, pty: &Pty) -> Result<(i32, Child), StartError> {
    let spawn = Spawn {
        programs: &plan.programs,
        argv: &plan.argv,
        envp: &plan.envp,
        cwd: plan.cwd.as_fd(),
        stdio: [pty.terminal().as_fd(); 3],
        private: None,
        has_terminal: true,
        cgroup: None,
        tasks: &[],
    };
    Child::spawn(agent, &spawn).map(|child| (child.tree.leader, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_sides_from_one_to_a_thousand() {
        let some = |cols, rows| Some(Size { cols, rows });
        assert_eq!(size(None, None).unwrap(), None);
        assert_eq!(size(Some(1), Some(1000)).unwrap(), some(1, 1000));
        assert_eq!(size(Some(132), None).unwrap(), some(132, 24));
        for (cols, rows) in [(0, 24), (1001, 24), (80, 0), (80, 1001)] {
            let error = size(Some(cols), Some(rows)).unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed);
        }
    }
}
