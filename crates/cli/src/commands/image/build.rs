//! `sandbar image build`: sends a recipe and shows the build.
//!
//! On a terminal one moving line (step, time, last line of the log); otherwise plain lines.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use api::{
    id::ImageRef,
    image::{BuildEvent, BuildImage, Image},
    limit::RECIPE_BYTES,
};
use clap::Args;
use client::Client;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    failure::Stop,
    output::{Output, escape_control, print_json, print_line},
    units::format_bytes,
};

/// Lines of the log shown again when a step fails: on a terminal they were overwritten.
const LAST_LINES: usize = 20;

/// Between two frames of the spinner; slow enough for a serial console.
const FRAME: Duration = Duration::from_millis(120);

/// Arguments of `sandbar image build`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the result (`mine`, `mine:2`).
    #[arg(short, long = "tag", value_name = "NAME")]
    tag: ImageRef,
    /// The recipe, or a directory with a Dockerfile in it; - is stdin.
    #[arg(default_value = ".")]
    recipe: PathBuf,
}

/// Builds and reports.
pub(super) async fn run(
    client: &Client,
    arguments: Arguments,
    out: Output,
) -> anyhow::Result<ExitCode> {
    let recipe = read(&arguments.recipe)?;
    let request = BuildImage { name: arguments.tag, recipe };
    let mut events = client.build_image(&request).await?;
    let mut display = Display::new(out);
    while let Some(event) = events.next().await {
        let event = event?;
        if out.json {
            print_json(&event)?;
        }
        match event {
            BuildEvent::Step { index, total, instruction, cached } => {
                display.step(&Step { index, total, instruction, cached })?;
            }
            BuildEvent::Log { line } => display.log(&line)?,
            BuildEvent::Done { image } => {
                display.done(&image)?;
                return Ok(ExitCode::SUCCESS);
            }
            BuildEvent::Failed { message } => {
                display.failed()?;
                if out.json {
                    // The last event has said it.
                    return Err(Stop::Reported.into());
                }
                bail!("could not build {}: {message}", request.name);
            }
        }
    }
    bail!("the build's events ended before its result")
}

fn read(path: &Path) -> anyhow::Result<String> {
    let (mut source, name): (Box<dyn io::Read>, String) = if path == Path::new("-") {
        (Box::new(io::stdin().lock()), "stdin".to_owned())
    } else {
        let file = if path.is_dir() { path.join("Dockerfile") } else { path.to_owned() };
        let name = file.display().to_string();
        let opened = File::open(&file).with_context(|| format!("could not open the recipe {name}"));
        (Box::new(opened?), name)
    };
    let mut text = String::new();
    let limit = u64::try_from(RECIPE_BYTES + 1).unwrap_or(u64::MAX);
    source
        .by_ref()
        .take(limit)
        .read_to_string(&mut text)
        .with_context(|| format!("could not read the recipe {name}"))?;
    if text.len() > RECIPE_BYTES {
        bail!("the recipe {name} is over {}", format_bytes(limit - 1));
    }
    Ok(text)
}

struct Step {
    index: usize,
    total: usize,
    instruction: String,
    cached: bool,
}

impl Step {
    fn title(&self) -> String {
        let Self { index, total, instruction, cached } = self;
        // A RUN may go on for many lines; its first says enough.
        let first = escape_control(instruction.lines().next().unwrap_or_default());
        let cached = if *cached { " (done before)" } else { "" };
        format!("[{index}/{total}] {first}{cached}")
    }
}

/// How the build is shown.
struct Display {
    out: Output,
    bar: Option<ProgressBar>,
    title: String,
    last: VecDeque<String>,
}

impl Display {
    fn new(out: Output) -> Self {
        let bar = out.shows_progress().then(|| {
            let bar = ProgressBar::new_spinner();
            let style =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed}  {wide_msg:.dim}")
                    .unwrap_or_else(|_fault| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar.enable_steady_tick(FRAME);
            bar
        });
        Self { out, bar, title: String::new(), last: VecDeque::new() }
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let title = step.title();
        match &self.bar {
            Some(bar) => {
                if !self.title.is_empty() {
                    bar.println(format!("  {}", self.title));
                }
                bar.set_prefix(title.clone());
                bar.set_message("");
            }
            None if !self.out.json => print_line(&title)?,
            None => {}
        }
        self.title = title;
        self.last.clear();
        Ok(())
    }

    fn log(&mut self, line: &str) -> anyhow::Result<()> {
        let line = escape_control(line);
        match &self.bar {
            Some(bar) => {
                bar.set_message(line.clone());
                if self.last.len() == LAST_LINES {
                    self.last.pop_front();
                }
                self.last.push_back(line);
            }
            None if !self.out.json => print_line(line)?,
            None => {}
        }
        Ok(())
    }

    fn done(&mut self, image: &Image) -> anyhow::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.println(format!("  {}", self.title));
            bar.finish_and_clear();
        }
        if self.out.json {
            return Ok(());
        }
        let Image { name, digest, layers, size_bytes, .. } = image;
        let size = format_bytes(*size_bytes);
        print_line(format_args!("{name}: {layers} layers, {size}, {digest}"))
    }

    fn failed(&mut self) -> anyhow::Result<()> {
        let Some(bar) = self.bar.take() else { return Ok(()) };
        bar.finish_and_clear();
        print_line(&self.title)?;
        self.last.drain(..).try_for_each(|line| print_line(format_args!("  {line}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_means_the_dockerfile_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM x\n").unwrap();
        assert_eq!(read(dir.path()).unwrap(), "FROM x\n");
        let error = read(&dir.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn a_recipe_over_the_limit_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, vec![b'#'; RECIPE_BYTES]).unwrap();
        assert!(read(&path).is_ok());
        std::fs::write(&path, vec![b'#'; RECIPE_BYTES + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("256.0 KiB"));
    }

    #[test]
    fn a_step_is_titled_by_its_first_line() {
        let step =
            Step { index: 2, total: 7, instruction: "RUN a \\\n  && b".to_owned(), cached: true };
        assert_eq!(step.title(), "[2/7] RUN a \\ (done before)");
    }
}
