//! What is logged, and how.

use super::{reader::Reader, source::Raw, value};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level, or levels by module: `info`, `info,engine=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            level: reader.read("log.level", "info".to_owned(), level, String::clone),
            format: reader.read("log.format", LogFormat::Text, format, |format| {
                match format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                }
                .to_owned()
            }),
        }
    }
}

fn level(raw: &Raw) -> Result<String, String> {
    let text = value::text(raw)?;
    let is_level = |level: &str| LEVELS.contains(&level);
    let is_module = |module: &str| {
        !module.is_empty()
            && module.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
    };
    let is_good = text.split(',').all(|part| match part.split_once('=') {
        None => is_level(part),
        Some((module, level)) => is_module(module) && is_level(level),
    });
    if is_good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is {text:?}; write one of {}, or levels by module such as \"info,engine=debug\"",
            LEVELS.join(", ")
        ))
    }
}

fn format(raw: &Raw) -> Result<LogFormat, String> {
    match value::text(raw)? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("is {other:?}; write text or json")),
    }
}
