//! `sandbar key`: who may call the server, and for what.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    id::{IdPrefix, KeyName},
    key::{CreateKey, Key, KeyScope},
};
use clap::{Args, Subcommand};
use client::{Client, state_dir};
use serde_json::json;

use crate::{
    output::{Output, note, print_json, print_line, print_text},
    table::Table,
    units::{format_age, parse_duration},
};

/// Arguments of `sandbar key`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a key and print its secret, which is shown this once.
    Create(CreateArguments),
    /// List the keys, without their secrets.
    Ls,
    /// Remove a key; what is under way with it ends, its sandboxes stay.
    Rm {
        /// The key.
        name: KeyName,
    },
    /// Replace the key `local`, with which commands on the server's machine call it.
    Rotate,
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Its name, for lists and the log.
    name: KeyName,
    /// Only for sandboxes whose id begins with this (ci-); without it, for everything.
    #[arg(long)]
    prefix: Option<IdPrefix>,
    /// With --prefix: how many of those sandboxes there may be at once.
    #[arg(long, value_name = "N", requires = "prefix")]
    max_sandboxes: Option<u32>,
    /// Time until it is refused (12h, 30d); without it, it does not expire.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
}

impl CreateArguments {
    fn request(self) -> CreateKey {
        let scope = match self.prefix {
            Some(prefix) => KeyScope::Sandboxes { prefix, max_sandboxes: self.max_sandboxes },
            None => KeyScope::Admin {},
        };
        CreateKey {
            name: self.name,
            scope,
            expires_in_secs: self.expires.map(|time| time.as_secs()),
        }
    }
}

/// Creates, lists, removes or replaces.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Create(arguments) => {
            let new = client.create_key(&arguments.request()).await?;
            if out.json {
                print_json(&new)?;
            } else {
                // Alone on stdout, so that a script can take it.
                print_line(&new.secret)?;
                let scope = match new.key.scope {
                    KeyScope::Admin {} => "for everything on this node".to_owned(),
                    KeyScope::Sandboxes { prefix, .. } => {
                        format!("for sandboxes whose id begins with {prefix}")
                    }
                };
                note(
                    out,
                    format_args!(
                        "the key {} is {scope}; keep it, it is shown this once",
                        new.key.name
                    ),
                );
            }
        }
        Command::Ls => {
            let keys = client.list_keys().await?;
            if out.json {
                print_json(&json!({"keys": keys}))?;
            } else {
                print_text(table(&keys, SystemTime::now()))?;
            }
        }
        Command::Rm { name } => {
            client.remove_key(&name).await?;
            if out.json {
                print_json(&json!({"removed": name}))?;
            } else {
                print_line(&name)?;
            }
        }
        Command::Rotate => rotate(&client, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The new secret is in the key file. It is shown only to whoever does not read that file.
async fn rotate(client: &Client, out: Output) -> anyhow::Result<()> {
    let new = client.rotate_key().await?;
    let is_named = std::env::var_os("SANDBAR_KEY").is_some_and(|key| !key.is_empty());
    match (out.json, is_named) {
        (true, _) => print_json(&new),
        (false, true) => print_line(&new.secret),
        (false, false) => {
            let file = state_dir().join("key");
            print_line(format_args!("{} holds a new key; the old one is refused.", file.display()))
        }
    }
}

fn table(keys: &[Key], now: SystemTime) -> Table<5> {
    let mut table = Table::new(["NAME", "SANDBOXES", "AGE", "USED", "EXPIRES"]);
    for key in keys {
        let sandboxes = match &key.scope {
            KeyScope::Admin {} => "all (admin)".to_owned(),
            KeyScope::Sandboxes { prefix, max_sandboxes: None } => format!("{prefix}*"),
            KeyScope::Sandboxes { prefix, max_sandboxes: Some(most) } => {
                format!("{prefix}*, {most} at once")
            }
        };
        table.row([
            key.name.to_string(),
            sandboxes,
            format_age(key.created_at_ms, now),
            key.last_used_at_ms.map_or_else(|| "-".to_owned(), |at| used(at, now)),
            key.expires_at_ms.map_or_else(|| "never".to_owned(), |at| expires(at, now)),
        ]);
    }
    table
}

/// The last use is known to the hour.
fn used(at_ms: i64, now: SystemTime) -> String {
    let age = format_age(at_ms, now);
    if age.ends_with(['s', 'm']) { "<1h".to_owned() } else { age }
}

fn expires(at_ms: i64, now: SystemTime) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    match at.duration_since(now) {
        Ok(left) if !left.is_zero() => {
            let now_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            // What an age is backwards.
            format!("in {}", format_age(i64::try_from(now_ms).unwrap_or(i64::MAX), at))
        }
        _ => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_with_what_they_are_for() {
        let hour = 3_600_000;
        let now = UNIX_EPOCH + Duration::from_millis(100 * 3_600_000);
        let key = |name: &str, prefix: Option<&str>, used, expires| Key {
            name: name.parse().unwrap(),
            scope: match prefix {
                None => KeyScope::Admin {},
                Some(prefix) => {
                    KeyScope::Sandboxes { prefix: prefix.parse().unwrap(), max_sandboxes: None }
                }
            },
            created_at_ms: hour,
            expires_at_ms: expires,
            last_used_at_ms: used,
        };
        let keys = [
            key("a", None, None, None),
            key("b", Some("ci-"), Some(100 * hour - 1), Some(148 * hour)),
            key("c", Some("x."), Some(97 * hour), Some(100 * hour)),
        ];

        assert_eq!(
            table(&keys, now).to_string(),
            "NAME  SANDBOXES    AGE  USED  EXPIRES\n\
             a     all (admin)  4d   -     never\n\
             b     ci-*         4d   <1h   in 2d\n\
             c     x.*          4d   3h    expired\n"
        );
    }
}
