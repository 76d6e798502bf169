//! Signals by name and number.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A signal of signal(7): a name, with or without `SIG`, or a number from 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "SignalText", into = "i32")]
#[schema(value_type = String, example = "TERM")]
pub struct Signal(i32);

/// Names of the standard signals in the order of their numbers, from 1 on, as on x86 and ARM.
const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The highest signal number, that of the last real-time signal.
const LAST_SIGNAL: i32 = 64;

/// Why a text or a number is not a [`Signal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signal is a name as TERM or SIGTERM, or a number from 1 to {LAST_SIGNAL}")]
pub struct InvalidSignal;

impl Signal {
    /// Asks a program to end; it may refuse.
    pub const TERM: Self = Self(15);

    /// Ends a program.
    pub const KILL: Self = Self(9);

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name without `SIG`, if it is a standard one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        SIGNAL_NAMES.get(usize::try_from(self.0 - 1).ok()?).copied()
    }
}

impl TryFrom<i32> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: i32) -> Result<Self, InvalidSignal> {
        if (1..=LAST_SIGNAL).contains(&number) { Ok(Self(number)) } else { Err(InvalidSignal) }
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        if let Ok(number) = text.parse::<i32>() {
            return number.try_into();
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let number = (1..).zip(SIGNAL_NAMES).find(|(_, known)| *known == name);
        number.map(|(number, _)| Self(number)).ok_or(InvalidSignal)
    }
}

/// A signal as it is written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a signal is a name or a number")]
enum SignalText {
    Number(i32),
    Name(String),
}

impl TryFrom<SignalText> for Signal {
    type Error = InvalidSignal;

    fn try_from(text: SignalText) -> Result<Self, InvalidSignal> {
        match text {
            SignalText::Number(number) => number.try_into(),
            SignalText::Name(name) => name.parse(),
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_and_numbers() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("1", 1), ("SYS", 31)]
        {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "TERMINATE", "15.0"] {
            assert_eq!(text.parse::<Signal>(), Err(InvalidSignal), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Signal>("15").unwrap(), Signal::TERM);
        assert_eq!(serde_json::from_str::<Signal>("\"KILL\"").unwrap().name(), Some("KILL"));
        assert_eq!(serde_json::to_string(&Signal::TERM).unwrap(), "15");
        assert!(serde_json::from_str::<Signal>("0").is_err());
    }
}
