//! From facts to features: what is there, what its absence costs, how to get it.

use super::{Feature, Status, facts::Facts, trial::Outcome};

mod host;
mod kernel;
mod machine;
#[cfg(test)]
mod tests;

/// Everything there is to say about a machine, most important first.
pub(super) fn judge(facts: &Facts) -> Vec<Feature> {
    vec![
        kernel::root(facts),
        kernel::capabilities(facts),
        kernel::server_user(facts),
        kernel::version(facts),
        kernel::namespaces(facts),
        kernel::user_namespaces(facts),
        kernel::shifted_ids(facts),
        kernel::overlay(facts),
        host::state_directory(facts),
        host::attributes(facts),
        kernel::controllers(facts),
        kernel::unified_tree(facts),
        kernel::device_program(facts),
        kernel::seccomp(facts),
        host::nft(facts),
        host::nf_tables(facts),
        host::forwarding(facts),
        host::mmdebstrap(facts),
        host::disk(facts),
        host::disk_limits(facts),
        kernel::resource_capability(facts),
        host::open_files(facts),
        host::process_ids(facts),
        host::inotify(facts),
        host::connections(facts),
        host::core_files(facts),
        host::swap(facts),
        machine::page_merging(facts),
        machine::links(facts),
        machine::pointers(facts),
        machine::smt(facts),
        machine::cpu(facts),
        machine::security_modules(facts),
        machine::clock(facts),
    ]
}

/// A feature before it has been looked for.
struct Topic {
    name: &'static str,
    required: bool,
    cost: &'static str,
    remedy: &'static str,
}

impl Topic {
    fn found(&self, status: Status, detail: impl Into<String>) -> Feature {
        Feature {
            name: self.name,
            required: self.required,
            status,
            detail: detail.into(),
            cost: self.cost.to_owned(),
            remedy: self.remedy.to_owned(),
        }
    }

    fn present(&self, detail: impl Into<String>) -> Feature {
        self.found(Status::Present, detail)
    }

    fn degraded(&self, detail: impl Into<String>) -> Feature {
        self.found(Status::Degraded, detail)
    }

    fn missing(&self, detail: impl Into<String>) -> Feature {
        self.found(Status::Missing, detail)
    }

    /// What a trial says. Not having tried is a weakness of the answer, not of the machine, but
    /// nobody should take it for a yes.
    fn tried(&self, outcome: &Outcome, works: impl Into<String>) -> Feature {
        match outcome {
            Outcome::Works => self.present(works),
            Outcome::Fails(error) => self.missing(format!("tried: {error}")),
            Outcome::Untried(reason) => self.degraded(format!("not tried: {reason}")),
        }
    }
}

/// A sysctl that is a number; none when there is none.
fn number(facts: &Facts, setting: &str) -> Option<u64> {
    facts.settings.get(setting)?.parse().ok()
}
