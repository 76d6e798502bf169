//! Asks the given values what they mean, one setting at a time, and keeps every fault.

use std::collections::BTreeMap;

use super::{
    fault::Fault,
    source::{Given, Origin, Raw, Sources},
};

/// A setting's value in force, as [`super::Config::print`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effective {
    pub(super) setting: &'static str,
    pub(super) shown: String,
    pub(super) origin: Origin,
}

/// Values on their way from the sources to a checked configuration.
#[derive(Debug)]
pub(super) struct Reader {
    given: Vec<Given>,
    /// What the environment says about proxies, see [`Sources::proxies`].
    pub(super) proxies: BTreeMap<String, String>,
    pub(super) faults: Vec<Fault>,
    pub(super) effective: Vec<Effective>,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut faults = Vec::new();
        let given = sources.collect(&mut faults);
        Self { given, proxies: sources.proxies(), faults, effective: Vec::new() }
    }

    /// The setting's value: the last of its given ones, or `default`.
    ///
    /// Every given value is parsed, also one that another source overrides: a fault that hides
    /// behind an environment variable comes back the day the variable goes.
    pub(super) fn read<T>(
        &mut self,
        setting: &'static str,
        default: T,
        parse: impl Fn(&Raw) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let mut value = default;
        let mut origin = Origin::Default;
        for given in self.given.iter().filter(|given| given.setting == setting) {
            match parse(&given.raw) {
                Ok(parsed) => {
                    value = parsed;
                    origin = given.origin.clone();
                }
                Err(what) => {
                    self.faults.push(Fault::new(given.origin.clone(), format!("{setting} {what}")));
                }
            }
        }
        self.effective.push(Effective { setting, shown: show(&value), origin });
        value
    }

    /// A fault between settings, placed where `setting` was given.
    pub(super) fn fault(&mut self, setting: &'static str, message: impl Into<String>) {
        let origin = self
            .effective
            .iter()
            .find(|effective| effective.setting == setting)
            .map_or(Origin::Default, |effective| effective.origin.clone());
        self.faults.push(Fault::new(origin, message));
    }
}
