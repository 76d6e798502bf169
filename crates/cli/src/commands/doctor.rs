//! `sandbar doctor`: what this machine offers for isolation, what is missing, what that costs.

use std::{path::PathBuf, process::ExitCode};

use api::id::ImageRef;
use clap::Args;
use jail::features::{Feature, Status, probe};
use owo_colors::{OwoColorize as _, Stream};
use serde_json::{Value, json};

use crate::output::{Output, print_json, print_line, print_text};

pub(crate) mod attack;

/// Arguments of `sandbar doctor`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory where the server keeps its files, or will [default: /var/lib/sandbar].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Attack a new sandbox of the running server from inside, harmlessly, and print what held.
    #[arg(long, conflicts_with = "state_dir")]
    pub(crate) attack: bool,
    /// Image of the attacked sandbox, which needs python3; the server's default unless given.
    #[arg(long, requires = "attack")]
    pub(crate) image: Option<ImageRef>,
}

/// Prints every feature. Succeeds when all that are required are there.
pub(crate) fn run(arguments: &Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let state_dir = arguments.state_dir.clone().unwrap_or_else(client::state_dir);
    let features = probe(&state_dir);
    let missing = features.iter().filter(|feature| is_blocking(feature)).count();
    if out.json {
        let all: Vec<Value> = features.iter().map(wire).collect();
        print_json(&json!({"ok": missing == 0, "features": all}))?;
    } else {
        for feature in &features {
            print_text(lines(feature))?;
        }
        print_line(verdict(missing, &features))?;
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_blocking(feature: &Feature) -> bool {
    feature.required && feature.status == Status::Missing
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Present => "present",
        Status::Degraded => "degraded",
        Status::Missing => "missing",
    }
}

fn wire(feature: &Feature) -> Value {
    json!({
        "name": feature.name, "status": word(feature.status), "required": feature.required,
        "detail": feature.detail, "cost": feature.cost, "remedy": feature.remedy,
    })
}

/// One line for what is there; cost and remedy below it for what is not.
fn lines(feature: &Feature) -> String {
    let word = word(feature.status);
    let word = format!("{word:<9}");
    let word = match feature.status {
        Status::Present => word.if_supports_color(Stream::Stdout, |word| word.green()).to_string(),
        Status::Missing if feature.required => {
            word.if_supports_color(Stream::Stdout, |word| word.red()).to_string()
        }
        Status::Missing | Status::Degraded => {
            word.if_supports_color(Stream::Stdout, |word| word.yellow()).to_string()
        }
    };
    let mut text = format!("{word} {:<28} {}\n", feature.name, feature.detail);
    if feature.status != Status::Present {
        let need = if feature.required { "required" } else { "optional" };
        text.push_str(&format!("          {need}: {}\n", feature.cost));
        text.push_str(&format!("          to get it: {}\n", feature.remedy));
    }
    text
}

fn verdict(missing: usize, features: &[Feature]) -> String {
    let lesser = features
        .iter()
        .filter(|feature| feature.status != Status::Present && !is_blocking(feature))
        .count();
    match (missing, lesser) {
        (0, 0) => "Everything that isolation needs is here.".to_owned(),
        (0, _) => format!(
            "Everything that isolation requires is here; {lesser} of the above could be better."
        ),
        (1, _) => "Sandboxes cannot run here yet: 1 required feature is missing.".to_owned(),
        _ => format!("Sandboxes cannot run here yet: {missing} required features are missing."),
    }
}
