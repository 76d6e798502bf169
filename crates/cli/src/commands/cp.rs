//! `sandbar cp`: files and directories, from this machine into a sandbox and back.
//!
//! As cp -r does it: into a destination that is a directory, as the destination otherwise; a
//! source that ends in `/.` means what is in the directory. Permission bits are kept (not
//! set-user-id and its kin, and not those of directories that are there already); links are copied as
//! links; owners and times are not copied; pipes, sockets and devices are left out and named.
//!
//! A file goes through the file routes, a directory as one archive. Nothing is resumed: a copy that
//! breaks off is an error, and what was copied before stays, each file whole.

mod download;
pub(crate) mod place;
mod progress;
mod remote;
mod upload;

use std::process::ExitCode;

use api::archive::LeftOut;
use clap::Args;
use client::Client;
use serde::Serialize;

use self::{place::Place, progress::Progress};
use crate::{
    failure::{FAILED, Stop},
    output::{Output, escape_control, note, print_json},
};

/// Permission bits that are copied. The others (set-user-id, set-group-id, sticky) change who a
/// program runs as and never cross the border.
const MODE_BITS: u32 = 0o777;

/// Arguments of `sandbar cp`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Taken for habit's sake: a directory is always copied with everything in it.
    #[arg(short, long)]
    recursive: bool,
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
    #[serde(flatten)]
    left_out: LeftOut,
}

/// Copies in the direction the arguments say.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(out);
    let copied = copy(&arguments, &progress).await;
    progress.finish();
    let copied = copied?;
    tell(&copied.left_out, out);
    if out.json {
        print_json(&copied)?;
    }
    Ok(if copied.left_out.partial { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Names what was not copied.
pub(super) fn tell(left_out: &LeftOut, out: Output) {
    for entry in &left_out.left_out {
        let path = escape_control(&entry.path.replace('\n', "\\n"));
        note(out, format_args!("{path}: {}", entry.reason.as_str()));
    }
    let named = u64::try_from(left_out.left_out.len()).unwrap_or(u64::MAX);
    let more = left_out.left_out_count.saturating_sub(named);
    if more > 0 {
        note(out, format_args!("and {more} more like these"));
    }
    if left_out.partial {
        note(out, "the copy is not whole");
    }
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
