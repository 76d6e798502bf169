//! `sandbar cat`: the content of files in sandboxes, on stdout.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use api::id::SandboxId;
use clap::Args;
use client::Client;
use futures_util::TryStreamExt as _;

use crate::{
    output::{escape_control, written},
    sandbox_path::with_path,
};

/// Arguments of `sandbar cat`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The files, each as `ID:/path`; the sandbox is created when it does not exist.
    #[arg(value_name = "ID:/PATH", required = true, value_parser = with_path)]
    files: Vec<(SandboxId, String)>,
}

/// Writes the files to stdout, one after the other: byte for byte, or for a terminal with control
/// characters made visible.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let mut shown = io::stdout().is_terminal().then(Shown::default);
    for (id, path) in &arguments.files {
        let attempt = || format!("could not read {id}:{path}");
        let mut content = client.read_file_stream(id, path).await.with_context(attempt)?;
        while let Some(chunk) = content.try_next().await.with_context(attempt)? {
            match &mut shown {
                None => write(&chunk)?,
                Some(shown) => write(shown.show(&chunk).as_bytes())?,
            }
        }
        if let Some(shown) = &mut shown {
            write(shown.finish().as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Content as a terminal may have it.
#[derive(Debug, Default)]
struct Shown {
    /// The beginning of a UTF-8 sequence that the next chunk may complete: at most 3 bytes.
    cut: Vec<u8>,
}

impl Shown {
    fn show(&mut self, chunk: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(chunk);
        let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        let is_cut = std::str::from_utf8(last).is_err_and(|fault| fault.error_len().is_none());
        let whole = if is_cut { bytes.len() - last.len() } else { bytes.len() };
        self.cut = bytes.split_off(whole);
        escape_control(&String::from_utf8_lossy(&bytes))
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_gets_is_text_however_it_arrives() {
        let content = "ä€😀\u{1b}[2J\n".as_bytes();
        let expected = "ä€😀\\u{1b}[2J\n";
        for cut in 0..=content.len() {
            let mut shown = Shown::default();
            let (first, second) = content.split_at(cut);
            assert_eq!(shown.show(first) + &shown.show(second) + &shown.finish(), expected);
        }
        let mut shown = Shown::default();
        assert_eq!(shown.show(b"a\xff\xf0\x9f") + &shown.finish(), "a\u{fffd}\u{fffd}");
    }
}
