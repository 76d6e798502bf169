//! `sandbar shell`: this terminal becomes one inside a sandbox.

mod keys;
mod screen;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    error::ErrorCode,
    id::{SandboxId, SessionId, TerminalId},
    terminal::{AttachTerminal, CreateTerminal, TerminalEvent},
};
use clap::Args;
use client::{
    Client, ClientError, TerminalConnection, TerminalInput, TerminalMessage, TerminalOutput,
};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, timeout},
};

use self::{keys::Keyboard, screen::Screen};
use super::exec;
use crate::{
    failure::{Stop, may_pass},
    output::{Output, note, written},
    signals::{Signal, Signals},
};

/// How long a server that went away is looked for: a restart takes a second or two.
const RECONNECT_FOR: Duration = Duration::from_secs(15);

/// Pause between looks for it.
const RECONNECT_EVERY: Duration = Duration::from_millis(250);

/// Connections lost in a row, without anything shown between, after which it is given up.
const RECONNECTS: u32 = 3;

/// How long ending the terminal may take when nobody can come back to it.
const TIDY_UP: Duration = Duration::from_secs(5);

/// Arguments of `sandbar shell`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The sandbox; it is created when it does not exist.
    id: SandboxId,
    /// Start in the directory and with the variables of this session.
    #[arg(long, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Attach to this terminal, which is started unless it runs; it outlives this command.
    #[arg(short, long, value_name = "ID")]
    terminal: Option<TerminalId>,
    /// Program and arguments in place of bash; one argument with spaces is a text for the shell.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

const HELP: &str = "\
Ctrl-P Ctrl-Q detaches: the terminal goes on, and `sandbar shell SANDBOX --terminal ID` comes back
to it. Ends with the exit code of the shell or program. What is piped in is typed.";

/// Where this command's terminal is.
struct Place<'a> {
    sandbox: &'a SandboxId,
    terminal: TerminalId,
    /// It was started for this command alone.
    is_ours: bool,
}

/// Why the terminal is left.
enum Left {
    /// The program has ended.
    Exited { code: i32, signal: Option<String> },
    /// The detach keys were pressed.
    Detached,
    /// This program is to end.
    Told(Signal),
    /// The connection is gone, for this reason if one is known.
    Lost(anyhow::Error),
}

/// Shows the terminal until its program ends or it is left.
pub(crate) async fn run(
    arguments: Arguments,
    out: Output,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    if out.json {
        let text = "a terminal has no JSON form; use `sandbar exec --json`";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    let client = Client::from_environment()?;
    let place = signals.unless(open(&client, &arguments)).await??;
    let left = match Screen::take().context("could not take over this terminal") {
        // Given back before anything is said.
        Ok(mut screen) => view(&place, &mut screen, &mut signals).await,
        Err(error) => Err(error),
    };
    let Place { sandbox, terminal, .. } = &place;
    if place.is_ours && matches!(left, Ok(Left::Told(_)) | Err(_)) {
        let end = client.delete_terminal(sandbox, terminal);
        // If that fails, somebody finds it in the list of terminals.
        drop(timeout(TIDY_UP, end).await);
    }
    match left? {
        Left::Exited { code, signal } => {
            if let Some(signal) = signal {
                note(out, format_args!("the program was ended by {signal}"));
            }
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        Left::Detached => {
            note(
                out,
                format_args!(
                    "detached; `sandbar shell {sandbox} --terminal {terminal}` comes back"
                ),
            );
            Ok(ExitCode::SUCCESS)
        }
        Left::Told(signal) => Err(Stop::Signaled(signal).into()),
        Left::Lost(error) => Err(error.context(format!(
            "lost terminal {terminal} of {sandbox}; if it goes on, `sandbar shell {sandbox} \
             --terminal {terminal}` comes back to it"
        ))),
    }
}

/// Finds the terminal, or starts it.
async fn open<'a>(client: &Client, arguments: &'a Arguments) -> anyhow::Result<Place<'a>> {
    let Arguments { id: sandbox, session, terminal: named, command } = arguments;
    if let Some(id) = named
        && runs(client, sandbox, id).await?
    {
        if !command.is_empty() || session.is_some() {
            let text = format!("terminal {id} runs already; leave out --session and the command");
            return Err(Stop::Usage(text).into());
        }
        return Ok(Place { sandbox, terminal: id.clone(), is_ours: false });
    }
    let size = screen::size();
    let request = CreateTerminal {
        id: named.clone(),
        command: (!command.is_empty()).then(|| exec::command(command)),
        session: session.clone(),
        cols: size.map(|(cols, _)| cols),
        rows: size.map(|(_, rows)| rows),
        ..CreateTerminal::default()
    };
    let terminal = client.create_terminal(sandbox, &request).await?.id;
    Ok(Place { sandbox, terminal, is_ours: named.is_none() })
}

async fn runs(client: &Client, sandbox: &SandboxId, id: &TerminalId) -> anyhow::Result<bool> {
    match client.terminal(sandbox, id).await {
        Ok(terminal) => Ok(terminal.running),
        Err(ClientError::Api { error, .. }) if error.code == ErrorCode::TerminalNotFound => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Attaches, and attaches again when the server goes away and comes back.
async fn view(
    place: &Place<'_>,
    screen: &mut Screen,
    signals: &mut Signals,
) -> anyhow::Result<Left> {
    let mut keyboard = Keyboard::new(screen.is_interactive());
    let mut cursor = None;
    let mut lost = 0;
    loop {
        let mut connection = match signals.unless(attach(place, cursor)).await? {
            Ok(connection) => connection,
            Err(error) if cursor.is_some() => return Ok(Left::Lost(error)),
            Err(error) => return Err(error),
        };
        let begun = connection.output.cursor();
        let left = show(&mut connection, &mut keyboard, screen, signals).await?;
        let Left::Lost(error) = left else { return Ok(left) };
        let now = connection.output.cursor();
        lost = if now > begun { 1 } else { lost + 1 };
        if lost > RECONNECTS {
            return Ok(Left::Lost(error));
        }
        cursor = Some(now);
    }
}

/// A connection to the terminal, from a server that may be on its way up if there was one before.
async fn attach(place: &Place<'_>, cursor: Option<u64>) -> anyhow::Result<TerminalConnection> {
    let deadline = Instant::now() + RECONNECT_FOR;
    loop {
        match attach_once(place, cursor).await {
            Err(error) if cursor.is_some() && may_pass(&error) && Instant::now() < deadline => {
                sleep(RECONNECT_EVERY).await;
            }
            attached => return Ok(attached?),
        }
    }
}

async fn attach_once(
    place: &Place<'_>,
    cursor: Option<u64>,
) -> Result<TerminalConnection, ClientError> {
    // A server that was started again may listen elsewhere.
    let client = Client::from_environment()?;
    let size = screen::size();
    let query = AttachTerminal {
        cols: size.map(|(cols, _)| cols),
        rows: size.map(|(_, rows)| rows),
        create: Some(false),
        cursor,
        ..AttachTerminal::default()
    };
    client.attach_terminal(place.sandbox, &place.terminal, &query).await
}

/// Passes keys in and output out until one of the two ends.
async fn show(
    connection: &mut TerminalConnection,
    keyboard: &mut Keyboard,
    screen: &mut Screen,
    signals: &mut Signals,
) -> anyhow::Result<Left> {
    let TerminalConnection { input, output } = connection;
    tokio::select! {
        left = print(output) => left,
        left = type_in(input, keyboard, screen) => left,
        signal = signals.next() => Ok(Left::Told(signal)),
    }
}

async fn print(output: &mut TerminalOutput) -> anyhow::Result<Left> {
    // Asynchronous, so that a screen that is slow does not keep keys and signals from being seen.
    let mut stdout = tokio::io::stdout();
    let mut reason = None;
    loop {
        match output.next().await {
            Ok(Some(TerminalMessage::Output(bytes))) => {
                written(
                    async {
                        stdout.write_all(&bytes).await?;
                        stdout.flush().await
                    }
                    .await,
                )?;
            }
            Ok(Some(TerminalMessage::Event(TerminalEvent::Exit { code, signal }))) => {
                return Ok(Left::Exited { code, signal });
            }
            Ok(Some(TerminalMessage::Event(TerminalEvent::Error { message }))) => {
                reason = Some(message);
            }
            Ok(Some(TerminalMessage::Event(TerminalEvent::Ready))) => {}
            Ok(None) => {
                let reason =
                    reason.unwrap_or_else(|| "the server closed the connection".to_owned());
                return Ok(Left::Lost(anyhow::anyhow!(reason)));
            }
            Err(error) => return Ok(Left::Lost(error.into())),
        }
    }
}

async fn type_in(
    input: &mut TerminalInput,
    keyboard: &mut Keyboard,
    screen: &mut Screen,
) -> anyhow::Result<Left> {
    loop {
        let sent = tokio::select! {
            keys = keyboard.next() => match keys.context("could not read stdin")? {
                Some(keys) => input.write(&keys).await,
                None => return Ok(Left::Detached),
            },
            size = screen.resized() => {
                let (cols, rows) = size.context("could not take over this terminal again")?;
                input.resize(cols, rows).await
            }
        };
        if sent.is_err() {
            // The other half says why.
            std::future::pending::<()>().await;
        }
    }
}
