//! Configuration: four sources, one checked value, every fault at once.
//!
//! ```text
//! defaults < file (TOML) < SANDBAR_* environment < flags ──► values with origins ──► Config | faults
//! ```
//!
//! Owns: the names, defaults and ranges of all settings. Only this module and the command line read
//! the environment. The file is `--config`, `SANDBAR_CONFIG`, or `/etc/sandbar/sandbar.toml` where
//! that exists.

mod api;
mod fault;
mod limits;
mod log;
mod network;
mod node;
mod preview;
mod reader;
mod setting;
mod source;
mod value;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, env, ffi::OsString, fmt::Write};

use reader::{Effective, Reader};
use source::Sources;

pub use self::{
    api::ApiConfig,
    fault::{ConfigError, Fault},
    limits::LimitsConfig,
    log::{LogConfig, LogFormat},
    node::NodeConfig,
    preview::{PreviewConfig, PreviewUrl},
    setting::{SETTINGS, Setting},
    source::Origin,
};

pub(crate) use self::preview::DEFAULT_DOMAIN;

/// Everything an operator decides, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens, whom it answers, and its key.
    pub api: ApiConfig,
    /// Where previews are.
    pub preview: PreviewConfig,
    /// What the node is.
    pub node: NodeConfig,
    /// What a sandbox gets, and the most it may ask for.
    pub limits: LimitsConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    effective: Vec<Effective>,
}

impl Config {
    /// Reads all sources. `flags` are settings from the command line by their dotted names
    /// (`limits.default.memory`), the last one counting, and `config` for the file's name.
    ///
    /// # Errors
    /// Every fault of every source.
    pub fn load(flags: Vec<(String, String)>) -> Result<Self, ConfigError> {
        // A variable that is not UTF-8 is not one of ours: all our names and values are ASCII or
        // paths we refuse to guess.
        let text = |text: OsString| text.into_string().ok();
        let environment: BTreeMap<String, String> =
            env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        Self::from_sources(&Sources { environment, flags })
    }

    fn from_sources(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let api = ApiConfig::read(&mut reader);
        let preview = PreviewConfig::read(&mut reader, &api);
        let node = NodeConfig::read(&mut reader);
        let limits = LimitsConfig::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let Reader { faults, mut effective, .. } = reader;
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        effective.sort_by_key(|value| SETTINGS.iter().position(|s| s.name == value.setting));
        Ok(Self { api, preview, node, limits, log, effective })
    }

    /// The values in force, keys hidden: the setting, its value, where that came from.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &str, &Origin)> {
        self.effective.iter().map(|value| (value.setting, value.shown.as_str(), &value.origin))
    }

    /// The values in force and where each came from, one a line, keys hidden.
    #[must_use]
    pub fn print(&self) -> String {
        let width = |text: fn(&Effective) -> usize| self.effective.iter().map(text).max();
        let names = width(|value| value.setting.len()).unwrap_or(0);
        let values = width(|value| value.shown.len()).unwrap_or(0);
        self.effective.iter().fold(String::new(), |mut page, value| {
            let Effective { setting, shown, origin } = value;
            writeln!(page, "{setting:names$}  {shown:values$}  {origin}")
                .expect("writing to a String cannot fail");
            page
        })
    }
}
