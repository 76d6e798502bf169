//! `sandbar env`: the variables of a sandbox or a session.

use std::{collections::BTreeMap, process::ExitCode};

use api::{
    env::ChangeEnv,
    id::{SandboxId, SessionId},
};
use clap::Args;
use client::Client;

use crate::output::{Output, escape_control, print_json, print_line};

/// Arguments of `sandbar env`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox; it is created when it does not exist.
    id: SandboxId,
    /// The variables of this session, in place of the sandbox's own.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Set variables (NAME=VALUE; NAME alone takes its value from here) or unset them (NAME-).
    /// Without any, all are shown.
    #[arg(value_name = "NAME[=VALUE]|NAME-", value_parser = parse_change)]
    changes: Vec<(String, Option<String>)>,
}

/// A value that stays out of the command line, and with it out of histories and process lists.
fn parse_change(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match text.strip_suffix('-') {
            Some(name) => (name, None),
            None => match std::env::var(text) {
                Ok(value) => (text, Some(value)),
                Err(fault) => return Err(format!("cannot take {text} from here: {fault}")),
            },
        },
    };
    if name.is_empty() {
        return Err(format!("{text:?} has no name; write NAME=VALUE or NAME-"));
    }
    Ok((name.to_owned(), value))
}

/// Shows or changes the variables.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let Arguments { id, session, changes } = arguments;
    if !changes.is_empty() {
        let changes = ChangeEnv { env: changes.into_iter().collect::<BTreeMap<_, _>>() };
        client.change_env(&id, session.as_ref(), &changes).await?;
        if out.json {
            // Not the values: they may be secrets.
            let names: Vec<_> = changes.env.keys().collect();
            print_json(&serde_json::json!({"changed": names}))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let variables = client.env(&id, session.as_ref()).await?;
    if out.json {
        print_json(&variables)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in &variables.env {
        print_line(escape_control(&format!("{name}={value}")).replace('\n', "\\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_set_and_unset() {
        let change =
            |name: &str, value: Option<&str>| Ok((name.to_owned(), value.map(str::to_owned)));
        assert_eq!(parse_change("A=b=c"), change("A", Some("b=c")));
        assert_eq!(parse_change("A=-"), change("A", Some("-")));
        assert_eq!(parse_change("A="), change("A", Some("")));
        assert_eq!(parse_change("A-"), change("A", None));
        for bad in ["=x", "-", "", "SANDBAR_TEST_NEVER_SET"] {
            assert!(parse_change(bad).is_err(), "{bad:?}");
        }
    }
}
