//! What a child that could not become its program tells its parent.

/// Bytes of a failed child's report: step and errno.
pub const REPORT_BYTES: usize = 8;

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Joining a v1 cgroup.
    JoinCgroup,
    /// Becoming the leader of a session.
    Session,
    /// Setting the signal mask.
    Signals,
    /// Putting stdin, stdout and stderr in their places.
    Stdio,
    /// Making stdin the controlling terminal.
    Terminal,
    /// Changing to the working directory.
    WorkingDirectory,
    /// Marking all other descriptors to be closed.
    CloseOthers,
    /// Installing the filter that hides `clone3`.
    Filter,
    /// Becoming the program.
    Exec,
}

const STEPS: [Step; 9] = [
    Step::JoinCgroup,
    Step::Session,
    Step::Signals,
    Step::Stdio,
    Step::Terminal,
    Step::WorkingDirectory,
    Step::CloseOthers,
    Step::Filter,
    Step::Exec,
];

/// A failed child's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{step:?}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct Failure {
    /// What it was doing.
    pub step: Step,
    /// The kernel's answer.
    pub errno: i32,
}

impl Failure {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let [a, b, c, d] = (self.step as i32).to_ne_bytes();
        let [e, f, g, h] = self.errno.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Reads a report; none when no child wrote this.
    #[must_use]
    pub fn from_bytes(report: [u8; REPORT_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = report;
        let index = usize::try_from(i32::from_ne_bytes([a, b, c, d])).ok()?;
        Some(Self { step: *STEPS.get(index)?, errno: i32::from_ne_bytes([e, f, g, h]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_it_was_written() {
        for step in STEPS {
            let failure = Failure { step, errno: 7 };
            assert_eq!(Failure::from_bytes(failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes([255; REPORT_BYTES]), None);
    }
}
