//! Where values come from: the file, the environment, the command line. Each source is turned into
//! the same list of [`Given`] values; what they mean is decided by `reader.rs`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    fault::Fault,
    setting::{SETTINGS, is_section, nearest},
};

/// Bytes of a configuration file. The sample with all its comments has under 10 KiB; a larger file
/// is the wrong file.
const FILE_BYTES: u64 = 256 * 1024;

/// Read when no other file is named and it exists.
const DEFAULT_FILE: &str = "/etc/sandbar/sandbar.toml";

/// What every variable of ours begins with.
const PREFIX: &str = "SANDBAR_";

/// Variables that name a proxy, by the convention of curl and most programs.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];

/// Variables of the prefix that are not settings of the server: the client's URL, and the name of
/// the configuration file.
const NOT_SETTINGS: [&str; 2] = ["SANDBAR_URL", "SANDBAR_CONFIG"];

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the product's default.
    Default,
    /// On a line of the configuration file, from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// By this environment variable.
    Variable(String),
    /// By this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value as written, before anybody asked what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A string, or a number or boolean as its text: the environment and flags know nothing else.
    Text(String),
    /// An array of texts.
    List(Vec<String>),
    /// A TOML value no setting has: its type.
    Other(&'static str),
}

/// One value of one setting.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) setting: &'static str,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// Everything a configuration is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// Environment variables; those without our prefix are ignored.
    pub(super) environment: BTreeMap<String, String>,
    /// Settings from the command line, by their dotted names, and `config`, the file's name.
    pub(super) flags: Vec<(String, String)>,
}

impl Sources {
    /// All values in rising precedence: file, environment, flags.
    pub(super) fn collect(&self, faults: &mut Vec<Fault>) -> Vec<Given> {
        let mut given = Vec::new();
        self.read_file(&mut given, faults);
        self.read_environment(&mut given, faults);
        self.read_flags(&mut given, faults);
        given
    }

    /// The proxy variables, by their lower-case names; where both spellings are set the lower-case
    /// one counts, as it does for curl.
    pub(super) fn proxies(&self) -> BTreeMap<String, String> {
        let value = |name: &str| {
            let lower = self.environment.get(name);
            lower.or_else(|| self.environment.get(&name.to_ascii_uppercase()))
        };
        let set = |name: &str| Some((name.to_owned(), value(name)?.clone()));
        PROXIES.iter().filter_map(|name| set(name)).filter(|(_, value)| !value.is_empty()).collect()
    }

    fn read_file(&self, given: &mut Vec<Given>, faults: &mut Vec<Fault>) {
        let flag = self.flags.iter().rev().find(|(name, _)| name == "config");
        let variable = self.environment.get("SANDBAR_CONFIG").filter(|path| !path.is_empty());
        let (path, origin) = match (flag, variable) {
            (Some((_, path)), _) => (path.as_str(), Origin::Flag("--config".to_owned())),
            (None, Some(path)) => (path.as_str(), Origin::Variable("SANDBAR_CONFIG".to_owned())),
            (None, None) if Path::new(DEFAULT_FILE).exists() => (DEFAULT_FILE, Origin::Default),
            (None, None) => return,
        };
        match read_limited(Path::new(path)) {
            Ok(text) => read_toml(Path::new(path), &text, given, faults),
            Err(error) => {
                faults.push(Fault::new(origin, format!("{path} cannot be read: {error}")));
            }
        }
    }

    fn read_environment(&self, given: &mut Vec<Given>, faults: &mut Vec<Fault>) {
        for (name, value) in &self.environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            // An empty variable is an unset one: shells and unit files cannot always unset.
            if value.is_empty() || NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            match SETTINGS.iter().find(|setting| setting.variable() == *name) {
                Some(setting) => given.push(Given {
                    setting: setting.name,
                    raw: Raw::Text(value.clone()),
                    origin,
                }),
                // Only a near miss is a fault: other programs may own names with our prefix.
                None => {
                    let dotted = rest.to_ascii_lowercase();
                    if let Some(meant) = nearest(&dotted) {
                        let message =
                            format!("no such setting; did you mean {}?", meant.variable());
                        faults.push(Fault::new(origin, message));
                    }
                }
            }
        }
    }

    fn read_flags(&self, given: &mut Vec<Given>, faults: &mut Vec<Fault>) {
        for (name, value) in self.flags.iter().filter(|(name, _)| name != "config") {
            let origin = Origin::Flag(format!("--set {name}"));
            match SETTINGS.iter().find(|setting| setting.name == name) {
                Some(setting) => given.push(Given {
                    setting: setting.name,
                    raw: Raw::Text(value.clone()),
                    origin,
                }),
                None => faults.push(Fault::new(origin, unknown(name))),
            }
        }
    }
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= FILE_BYTES) {
        Ok(text)
    } else {
        Err(std::io::Error::other(format!("it has more than {FILE_BYTES} bytes")))
    }
}

/// Reads as much as can be understood: a file with a broken line still has its other faults told.
fn read_toml(path: &Path, text: &str, given: &mut Vec<Given>, faults: &mut Vec<Fault>) {
    let origin_at = |offset: usize| Origin::File {
        path: path.to_owned(),
        line: 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        faults.push(Fault::new(origin_at(offset), format!("not TOML: {}", error.message())));
    }
    walk(table.get_ref(), "", &mut |name, key, value| {
        let origin = origin_at(key.span().start);
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => {
                let raw = raw_of(value.get_ref());
                given.push(Given { setting: setting.name, raw, origin });
            }
            None if is_section(name) => {
                faults.push(Fault::new(origin, format!("{name} is a section: write [{name}]")));
            }
            None => faults.push(Fault::new(origin, unknown(name))),
        }
    });
}

/// Calls `leaf` for every key that is not a known section, with its dotted name.
fn walk<'i>(
    table: &DeTable<'i>,
    prefix: &str,
    leaf: &mut impl FnMut(&str, &Spanned<std::borrow::Cow<'i, str>>, &Spanned<DeValue<'i>>),
) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if is_section(&name) => walk(inner, &format!("{name}."), leaf),
            _ => leaf(&name, key, value),
        }
    }
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Array(items) => items
            .iter()
            .map(|item| text_of(item.get_ref()))
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other("an array of something other than texts"), Raw::List),
        other => text_of(other).map_or(Raw::Other(value.type_str()), Raw::Text),
    }
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Some(number.as_str().to_owned()), |number| Some(number.to_string())),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(meant) => format!("no setting is called {name}; did you mean {}?", meant.name),
        None => format!(
            "no setting is called {name}; there are {}",
            SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
        ),
    }
}
