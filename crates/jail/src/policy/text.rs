//! Reads a policy file and checks it: what comes out has an answer for every call there is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::arch::Arch;

/// Arguments of a system call.
const ARGUMENTS: u8 = 6;

/// Largest error number that the kernel passes on from a filter (`MAX_ERRNO`, linux/err.h).
const MAX_ERRNO: u16 = 4095;

/// A fault in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Not TOML, or not of this shape.
    #[error("the file does not parse: {0}")]
    Syntax(String),
    /// An entry that does not say why it is there.
    #[error("{entry}: the reason is empty")]
    NoReason { entry: String },
    /// An entry about nothing.
    #[error("{entry}: no calls")]
    NoCalls { entry: String },
    /// A name that neither architecture has: a spelling mistake.
    #[error("{entry}: {call} is no system call")]
    UnknownCall { entry: String, call: String },
    /// Two entries about one call.
    #[error("{entry}: {call} has an entry already")]
    Twice { entry: String, call: String },
    /// A call that nobody has decided about.
    #[error("{call} has no entry")]
    Undecided { call: String },
    /// A name that is not among the constants.
    #[error("{entry}: {name} is no constant")]
    UnknownConstant { entry: String, name: String },
    /// A constant that nothing uses: a rule is missing.
    #[error("the constant {name} is not used")]
    UnusedConstant { name: String },
    /// A test that cannot fail or cannot hold.
    #[error("{entry}: a test of argument {argument} {fault}")]
    Test { entry: String, argument: u8, fault: &'static str },
    /// A number that is no error would make the call seem to succeed.
    #[error("{entry}: {errno} is no error number")]
    Errno { entry: String, errno: u32 },
    /// A rule without alternatives refuses always, one with an empty alternative never.
    #[error("{entry}: an empty list of alternatives or tests")]
    NoTests { entry: String },
}

/// What is decided about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The kernel decides.
    Allow,
    /// Allowed to the agent, absent for user code.
    Agent,
    /// EPERM.
    Refuse,
    /// ENOSYS.
    Absent,
    /// The first of these alternatives that fits decides; EPERM when none does.
    Conditional(Vec<Alternative>),
}

/// An answer for the calls whose arguments pass every test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alternative {
    /// What must hold.
    pub(super) tests: Vec<ArgumentTest>,
    /// The error of the call; none when it is allowed.
    pub(super) errno: Option<u16>,
}

/// A test of the low 32 bits of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArgumentTest {
    /// Which argument, from 0.
    pub(super) argument: u8,
    /// Bits that count.
    pub(super) mask: u32,
    /// Values to look for, after masking.
    pub(super) values: BTreeSet<u32>,
    /// Whether the test holds when the argument is one of the values.
    pub(super) wanted: bool,
}

/// A checked policy: each call of both architectures by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    decisions: BTreeMap<String, Decision>,
}

impl Policy {
    /// Reads and checks `text`.
    ///
    /// # Errors
    /// Every fault there is.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let file: File =
            toml::from_str(text).map_err(|error| vec![Fault::Syntax(error.to_string())])?;
        let mut check = Check::new(&file.constants);
        for (group, decision) in [
            (file.allow, Decision::Allow),
            (file.agent, Decision::Agent),
            (file.absent, Decision::Absent),
            (file.refuse, Decision::Refuse),
        ] {
            for entry in group {
                check.entry(&entry.name, &entry.reason, entry.calls, &decision);
            }
        }
        for rule in file.conditional {
            let name = rule.calls.join(", ");
            let mut alternatives = check.alternatives(&name, None, rule.allow);
            for fail in rule.fail {
                alternatives.extend(check.fail(&name, fail));
            }
            let decision = Decision::Conditional(alternatives);
            check.entry(&name, &rule.reason, rule.calls, &decision);
        }
        check.finish()
    }

    /// What is decided about the call of this name.
    ///
    /// # Panics
    /// For a name that is in no table: [`Policy::parse`] has seen them all.
    pub(super) fn decision(&self, call: &str) -> &Decision {
        self.decisions.get(call).expect("a checked policy decides about every call")
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    constants: BTreeMap<String, u32>,
    allow: Vec<Group>,
    conditional: Vec<Rule>,
    agent: Vec<Group>,
    absent: Vec<Group>,
    refuse: Vec<Group>,
}

/// Calls with one answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    reason: String,
    calls: Vec<String>,
}

/// Calls whose arguments decide.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    calls: Vec<String>,
    reason: String,
    allow: Vec<Vec<RawTest>>,
    #[serde(default)]
    fail: Vec<Fail>,
}

/// An error other than EPERM for some arguments that are not allowed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    errno: Value,
    reason: String,
    when: Vec<Vec<RawTest>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    argument: u8,
    mask: Option<Value>,
    r#in: Option<Vec<Value>>,
    not_in: Option<Vec<Value>>,
}

/// A number, or the name of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u32),
    Constant(String),
}

/// The faults found so far, and what was right.
struct Check<'a> {
    constants: &'a BTreeMap<String, u32>,
    unused: BTreeSet<&'a String>,
    undecided: BTreeSet<&'static str>,
    decisions: BTreeMap<String, Decision>,
    faults: Vec<Fault>,
}

impl<'a> Check<'a> {
    fn new(constants: &'a BTreeMap<String, u32>) -> Self {
        Self {
            constants,
            unused: constants.keys().collect(),
            undecided: Arch::ALL.iter().flat_map(|arch| arch.calls()).map(|call| call.0).collect(),
            decisions: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    fn entry(&mut self, name: &str, reason: &str, calls: Vec<String>, decision: &Decision) {
        let entry = || name.to_owned();
        if reason.trim().is_empty() {
            self.faults.push(Fault::NoReason { entry: entry() });
        }
        if calls.is_empty() {
            self.faults.push(Fault::NoCalls { entry: entry() });
        }
        for call in calls {
            if self.decisions.contains_key(&call) {
                self.faults.push(Fault::Twice { entry: entry(), call });
            } else if self.undecided.remove(call.as_str()) {
                self.decisions.insert(call, decision.clone());
            } else {
                self.faults.push(Fault::UnknownCall { entry: entry(), call });
            }
        }
    }

    fn alternatives(
        &mut self,
        entry: &str,
        errno: Option<u16>,
        raw: Vec<Vec<RawTest>>,
    ) -> Vec<Alternative> {
        if raw.is_empty() || raw.iter().any(Vec::is_empty) {
            self.faults.push(Fault::NoTests { entry: entry.to_owned() });
        }
        let mut tests =
            |raw: Vec<RawTest>| raw.into_iter().map(|raw| self.test(entry, raw)).collect();
        raw.into_iter().map(|raw| Alternative { tests: tests(raw), errno }).collect()
    }

    fn fail(&mut self, entry: &str, fail: Fail) -> Vec<Alternative> {
        if fail.reason.trim().is_empty() {
            self.faults.push(Fault::NoReason { entry: entry.to_owned() });
        }
        let errno = self.value(entry, fail.errno);
        let known = u16::try_from(errno).ok().filter(|errno| (1..=MAX_ERRNO).contains(errno));
        if known.is_none() {
            self.faults.push(Fault::Errno { entry: entry.to_owned(), errno });
        }
        self.alternatives(entry, known, fail.when)
    }

    fn test(&mut self, entry: &str, raw: RawTest) -> ArgumentTest {
        let mask = raw.mask.map_or(u32::MAX, |mask| self.value(entry, mask));
        let lists = (raw.r#in, raw.not_in);
        let (values, wanted, one_list) = match lists {
            (Some(values), None) => (values, true, true),
            (None, Some(values)) => (values, false, true),
            _ => (Vec::new(), true, false),
        };
        let values: BTreeSet<u32> =
            values.into_iter().map(|value| self.value(entry, value)).collect();
        for (wrong, fault) in [
            (!one_list, "needs either in or not_in"),
            (one_list && values.is_empty(), "has an empty list"),
            (raw.argument >= ARGUMENTS, "is of none of the 6 there are"),
            (values.iter().any(|value| value & !mask != 0), "looks for bits that the mask clears"),
        ] {
            if wrong {
                let argument = raw.argument;
                self.faults.push(Fault::Test { entry: entry.to_owned(), argument, fault });
            }
        }
        ArgumentTest { argument: raw.argument, mask, values, wanted }
    }

    fn value(&mut self, entry: &str, value: Value) -> u32 {
        let name = match value {
            Value::Number(number) => return number,
            Value::Constant(name) => name,
        };
        self.unused.remove(&name);
        self.constants.get(&name).copied().unwrap_or_else(|| {
            self.faults.push(Fault::UnknownConstant { entry: entry.to_owned(), name });
            0
        })
    }

    fn finish(mut self) -> Result<Policy, Vec<Fault>> {
        let unused = self.unused.into_iter().cloned().map(|name| Fault::UnusedConstant { name });
        self.faults.extend(unused);
        let undecided = self.undecided.into_iter().map(str::to_owned);
        self.faults.extend(undecided.map(|call| Fault::Undecided { call }));
        if self.faults.is_empty() {
            Ok(Policy { decisions: self.decisions })
        } else {
            Err(self.faults)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::TEXT;

    /// The faults of the policy after `old` in it has been replaced by `new`.
    fn faults(old: &str, new: &str) -> Vec<String> {
        assert!(TEXT.contains(old), "{old}");
        let faults = Policy::parse(&TEXT.replacen(old, new, 1)).expect_err("a fault");
        faults.iter().map(Fault::to_string).collect()
    }

    #[test]
    fn the_policy_has_no_faults() {
        assert_eq!(Policy::parse(TEXT).map(|_| ()), Ok(()));
    }

    #[test]
    fn every_entry_is_needed() {
        let file: File = toml::from_str(TEXT).expect("it parses");
        let groups = [file.allow, file.agent, file.absent, file.refuse].into_iter().flatten();
        let calls = groups.flat_map(|group| group.calls);
        for call in calls.chain(file.conditional.into_iter().flat_map(|rule| rule.calls)) {
            let quoted = format!("\"{call}\"");
            let (text, count) = (TEXT.replace(&quoted, ""), TEXT.matches(&quoted).count());
            assert_eq!(count, 1, "{call}");
            let text = text.replace(", ,", ",").replace("[, ", "[").replace("    ,", "    ");
            let faults = Policy::parse(&text).expect_err("a fault");
            assert!(
                faults.contains(&Fault::Undecided { call: call.clone() }),
                "{call}: {faults:?}"
            );
        }
    }

    #[test]
    fn each_fault_is_named() {
        for (old, new, expected) in [
            ("[constants]", "[constant]", "the file does not parse: "),
            ("name = \"memory\"", "nam = \"memory\"", "the file does not parse: "),
            ("AF_INET = 2", "AF_INET = -2", "the file does not parse: "),
            (
                "reason = \"Every event loop.\"",
                "reason = \" \"",
                "waiting for descriptors: the reason is empty",
            ),
            (
                "calls = [\"add_key\", \"request_key\", \"keyctl\"]",
                "calls = []",
                "kernel keyrings: no calls",
            ),
            ("\"add_key\"", "\"ad_key\"", "kernel keyrings: ad_key is no system call"),
            ("\"add_key\"", "\"read\"", "kernel keyrings: read has an entry already"),
            ("\"add_key\", ", "", "add_key has no entry"),
            ("in = [\"NETLINK_ROUTE\"]", "in = [\"NETLINK\"]", "socket: NETLINK is no constant"),
            ("in = [\"NETLINK_ROUTE\"]", "in = [0]", "the constant NETLINK_ROUTE is not used"),
            (
                "in = [\"NETLINK_ROUTE\"]",
                "in = []",
                "socket: a test of argument 2 has an empty list",
            ),
            (
                "in = [\"NETLINK_ROUTE\"]",
                "in = [0], not_in = [1]",
                "socket: a test of argument 2 needs either in or not_in",
            ),
            (
                "argument = 2, in = [\"NETLINK_ROUTE\"]",
                "argument = 6, in = [\"NETLINK_ROUTE\"]",
                "socket: a test of argument 6 is of none of the 6 there are",
            ),
            (
                "mask = \"CLONE_NEW\", in = [0]",
                "mask = \"CLONE_NEW\", in = [1]",
                "clone: a test of argument 0 looks for bits that the mask clears",
            ),
            (
                "allow = [[{ argument = 0, mask = \"CLONE_NEW\", in = [0] }]]",
                "allow = [[]]",
                "clone: an empty list of alternatives or tests",
            ),
        ] {
            let found = faults(old, new);
            assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let text =
            TEXT.replacen("\"add_key\"", "\"ad_key\"", 1).replacen("TIOCSTI = ", "TIOCST = ", 1);
        let faults = Policy::parse(&text).expect_err("faults");
        // The wrong call, the right one that lost its entry, the name without a constant, the
        // constant that nothing names.
        assert_eq!(faults.len(), 4, "{faults:?}");
    }
}
