//! `sandbar image`: the images of the server; build one and watch.

mod build;

use std::{process::ExitCode, time::SystemTime};

use api::image::Image;
use clap::{Args, Subcommand};
use client::Client;

use crate::{
    output::{Output, print_json, print_text},
    table::Table,
    units::{format_age, format_bytes},
};

/// Arguments of `sandbar image`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the images.
    Ls,
    /// Build an image from a recipe (a Dockerfile with FROM, RUN, ENV, WORKDIR and LABEL).
    Build(build::Arguments),
}

/// Lists or builds.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Ls => {
            let list = client.list_images().await?;
            if out.json {
                print_json(&list)?;
            } else {
                print_text(table(&list.images, SystemTime::now()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Build(arguments) => build::run(&client, arguments, out).await,
    }
}

fn table(images: &[Image], now: SystemTime) -> Table<5> {
    let mut table = Table::new(["NAME", "DIGEST", "LAYERS", "SIZE", "AGE"]);
    for image in images {
        table.row([
            image.name.to_string(),
            short_digest(&image.digest).to_owned(),
            image.layers.to_string(),
            // The image `host` stores nothing.
            if image.size_bytes == 0 { "-".to_owned() } else { format_bytes(image.size_bytes) },
            if image.created_at_ms == 0 {
                "-".to_owned()
            } else {
                format_age(image.created_at_ms, now)
            },
        ]);
    }
    table
}

/// The first twelve digits tell images apart; `--json` has them all.
fn short_digest(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_short_and_host_has_none() {
        assert_eq!(
            short_digest(&format!("sha256:{}", "0123456789abcdef".repeat(4))),
            "0123456789ab"
        );
        assert_eq!(short_digest("host"), "host");
    }
}
