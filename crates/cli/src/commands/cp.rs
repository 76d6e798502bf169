//! `sandbar cp`: files and directories, from this machine into a sandbox and back.
//!
//! As cp -r does it: into a destination that is a directory, as the destination otherwise; a
//! source that ends in `/.` means what is in the directory. Permission bits of files are kept
//! (not set-user-id and its kin); links are copied as links; owners, times and the bits of
//! directories are not copied; pipes, sockets and devices are left out and named.

mod download;
pub(crate) mod place;
mod progress;
mod remote;
mod upload;

use std::process::ExitCode;

use clap::Args;
use client::Client;
use serde::Serialize;

use self::{place::Place, progress::Progress};
use crate::{
    failure::Stop,
    output::{Output, escape_control, note, print_json},
};

/// Files in flight at once: enough to hide the time of a round trip, few enough to leave the
/// server's connections to others.
const IN_FLIGHT: usize = 8;

/// Permission bits that are copied. The others (set-user-id, set-group-id, sticky) change who a
/// program runs as and never cross the border.
const MODE_BITS: u32 = 0o777;

/// Arguments of `sandbar cp`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to copy: a local path, or `ID:/path` in a sandbox.
    #[arg(value_name = "SOURCE")]
    source: Place,
    /// Where to: a local path, or `ID:/path` in a sandbox.
    #[arg(value_name = "DESTINATION")]
    destination: Place,
}

/// What has been copied.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Copied {
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
    /// Neither file, directory nor link.
    left_out: Vec<String>,
}

/// Copies in the direction the arguments say.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(out);
    let copied = copy(&arguments, &progress).await;
    progress.finish();
    let copied = copied?;
    for path in &copied.left_out {
        note(out, format_args!("left out {}: not a file, directory or link", escape_control(path)));
    }
    if out.json {
        print_json(&copied)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn copy(arguments: &Arguments, progress: &Progress) -> anyhow::Result<Copied> {
    match (&arguments.source, &arguments.destination) {
        (Place::Local(source), Place::Sandbox { id, path }) => {
            let client = Client::from_environment()?;
            upload::copy(&client, source, (id, path), progress).await
        }
        (Place::Sandbox { id, path }, Place::Local(destination)) => {
            let client = Client::from_environment()?;
            download::copy(&client, (id, path), destination, progress).await
        }
        (Place::Local(_), Place::Local(_)) => Err(Stop::Usage(
            "neither SOURCE nor DESTINATION is in a sandbox; write the one that is as ID:/path"
                .to_owned(),
        )
        .into()),
        (Place::Sandbox { .. }, Place::Sandbox { .. }) => Err(Stop::Usage(
            "SOURCE and DESTINATION are both in sandboxes; copy to this machine first".to_owned(),
        )
        .into()),
    }
}
