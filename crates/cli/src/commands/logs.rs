//! `sandbar logs`: what a process has written, and what it writes.

use std::process::ExitCode;

use api::{
    exec::{Encoding, ExecEvent},
    id::SandboxId,
    process::{OutputStream, ReadLogs},
};
use clap::Args;
use client::{Client, decode_output};
use futures_util::StreamExt as _;

use crate::{
    commands::{exec::write, require_sandbox},
    output::{Output, note, print_json, written},
};

/// Arguments of `sandbar logs`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    sandbox: SandboxId,
    /// The process: its id, or its process id inside the sandbox.
    process: String,
    /// Go on until the process ends, over a restart of the server too.
    #[arg(short, long)]
    follow: bool,
    /// Begin at this position, `nextCursor` of an earlier read (see --json).
    #[arg(long, value_name = "N")]
    cursor: Option<u64>,
}

/// Writes the process's stdout to stdout and its stderr to stderr.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    require_sandbox(&client, &arguments.sandbox).await?;
    if arguments.follow {
        follow(&client, &arguments, out).await?;
    } else {
        read(&client, &arguments, out).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes as they are, but where they must be a text.
fn encoding(out: Output) -> Encoding {
    if out.json { Encoding::Utf8 } else { Encoding::Base64 }
}

async fn read(client: &Client, arguments: &Arguments, out: Output) -> anyhow::Result<()> {
    let Arguments { sandbox, process, cursor, .. } = arguments;
    let query = ReadLogs { cursor: *cursor, follow: false, encoding: encoding(out) };
    let logs = client.process_logs(sandbox, process, &query).await?;
    if out.json {
        return print_json(&logs);
    }
    for record in &logs.records {
        show(record.stream, &record.data, query.encoding).await?;
    }
    if logs.dropped_bytes > 0 {
        dropped(out, logs.dropped_bytes);
    }
    Ok(())
}

async fn follow(client: &Client, arguments: &Arguments, out: Output) -> anyhow::Result<()> {
    let Arguments { sandbox, process, cursor, .. } = arguments;
    let encoding = encoding(out);
    let mut events = client.follow_process(sandbox, process, *cursor, encoding).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        if out.json {
            print_json(&event)?;
            continue;
        }
        match event {
            ExecEvent::Stdout { data, .. } => show(OutputStream::Stdout, &data, encoding).await?,
            ExecEvent::Stderr { data, .. } => show(OutputStream::Stderr, &data, encoding).await?,
            ExecEvent::Dropped { bytes } => dropped(out, bytes),
            ExecEvent::Start { .. } | ExecEvent::Exit { .. } => {}
        }
    }
    Ok(())
}

async fn show(stream: OutputStream, data: &str, encoding: Encoding) -> anyhow::Result<()> {
    let bytes = decode_output(data, encoding)?;
    match stream {
        OutputStream::Stdout => written(write(&mut tokio::io::stdout(), &bytes).await),
        OutputStream::Stderr => {
            // Without a stderr the other output still counts.
            drop(write(&mut tokio::io::stderr(), &bytes).await);
            Ok(())
        }
    }
}

fn dropped(out: Output, bytes: u64) {
    note(out, format_args!("{bytes} bytes are missing: the log keeps the newest only"));
}
