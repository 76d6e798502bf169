//! `sandbar webhook`: events sent to a URL, signed, until they are taken.

use std::process::ExitCode;

use anyhow::bail;
use api::{
    event::EventKind,
    id::{IdPrefix, WebhookName},
    webhook::{CreateWebhook, Webhook},
};
use clap::{Args, Subcommand};
use client::Client;
use serde::{Deserialize, de::value::StrDeserializer};
use serde_json::json;

use crate::{
    output::{Output, escape_control, note, print_json, print_line, print_text},
    table::Table,
};

/// Arguments of `sandbar webhook`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send events to a URL from now on, and print the secret that they are signed with, which is
    /// shown this once.
    Create(CreateArguments),
    /// List the webhooks: where they are, and what is wrong with their receivers.
    Ls,
    /// Send a receiver a delivery without an event.
    Test {
        /// The webhook.
        name: WebhookName,
    },
    /// Remove a webhook.
    Rm {
        /// The webhook.
        name: WebhookName,
    },
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Its name.
    name: WebhookName,
    /// Where events are sent.
    url: String,
    /// Only events of this kind (created, frozen, destroyed, ...); may be repeated.
    #[arg(long, value_parser = parse_kind)]
    kind: Vec<EventKind>,
    /// Only of sandboxes whose id begins with this (ci-).
    #[arg(long)]
    prefix: Option<IdPrefix>,
    /// Only of sandboxes that had this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
}

/// Creates, lists, tests or removes.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Create(arguments) => {
            let CreateArguments { name, url, kind: kinds, prefix, label } = arguments;
            let request = CreateWebhook { name, url, kinds, prefix, label };
            let new = client.create_webhook(&request).await?;
            if out.json {
                print_json(&new)?;
            } else {
                // Alone on stdout, so that a script can take it.
                print_line(&new.secret)?;
                note(out, "deliveries are signed with this; keep it, it is shown this once");
            }
        }
        Command::Ls => {
            let webhooks = client.list_webhooks().await?;
            if out.json {
                print_json(&json!({"webhooks": webhooks}))?;
            } else {
                print_text(table(&webhooks))?;
            }
        }
        Command::Test { name } => {
            let tested = client.test_webhook(&name).await?;
            if out.json {
                print_json(&tested)?;
            }
            match tested.message {
                None if out.json => {}
                None => print_line(&name)?,
                Some(message) => bail!("{name}: {}", escape_control(&message)),
            }
        }
        Command::Rm { name } => {
            client.remove_webhook(&name).await?;
            if out.json {
                print_json(&json!({"removed": name}))?;
            } else {
                print_line(&name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(webhooks: &[Webhook]) -> Table<4> {
    let mut table = Table::new(["NAME", "URL", "CURSOR", "STATE"]);
    for webhook in webhooks {
        let state = match &webhook.failure {
            None => "ok".to_owned(),
            Some(failure) => format!("{} attempts: {}", failure.attempts, failure.message),
        };
        let texts =
            [webhook.name.to_string(), webhook.url.clone(), webhook.cursor.to_string(), state];
        table.row(texts.map(|text| escape_control(&text)));
    }
    table
}

fn parse_kind(text: &str) -> Result<EventKind, String> {
    EventKind::deserialize(StrDeserializer::<serde::de::value::Error>::new(text))
        .map_err(|error| error.to_string())
}
