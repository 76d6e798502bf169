//! `sandbar serve`: launcher and daemon in the foreground. Also the flags of the server's
//! configuration, which `down` and `config` share.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use daemon::config::{Config, SETTINGS};

/// Arguments of `sandbar serve`.
#[derive(Debug, Args)]
#[command(after_long_help = settings())]
pub(crate) struct Arguments {
    /// Address and port of the API [default: 127.0.0.1:8787].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    configuration: ConfigurationArguments,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(crate) struct ConfigurationArguments {
    /// Configuration file [default: /etc/sandbar/sandbar.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of everything the server keeps [default: /var/lib/sandbar].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Set any setting of the configuration (limits.default.memory=1GiB).
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

/// The settings, for the long help: there are too many for a flag each.
fn settings() -> String {
    let mut text = String::from(
        "Settings, in the file, as SANDBAR_* in the environment (limits.max.pids is \
         SANDBAR_LIMITS_MAX_PIDS), or by --set:",
    );
    for setting in SETTINGS {
        text.push_str("\n  ");
        text.push_str(&format!("{:<24}{}", setting.name, setting.about));
    }
    text
}

impl ConfigurationArguments {
    /// True when any of them was given.
    pub(crate) fn are_given(&self) -> bool {
        self.config.is_some() || self.state_dir.is_some() || !self.set.is_empty()
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// All its faults in one text.
    pub(crate) fn load(&self, further: &[(&str, &str)]) -> anyhow::Result<Config> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut flags = self.set.clone();
        flags.extend(self.config.iter().map(|path| ("config".to_owned(), text(path))));
        flags.extend(self.state_dir.iter().map(|path| ("state_dir".to_owned(), text(path))));
        flags.extend(further.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Config::load(flags)?)
    }
}

/// Serves until a signal or `sandbar down` ends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let listen: Vec<_> = arguments.listen.iter().map(|text| ("listen", text.as_str())).collect();
    daemon::serve(arguments.configuration.load(&listen)?)?;
    Ok(ExitCode::SUCCESS)
}
