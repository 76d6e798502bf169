//! Step: limits of single processes; those of the whole jail are in its cgroups. *After fork.*

use sys::limits::{Limit, set_limit};

use super::{Failure, in_step};

/// Descriptors one process may have open: what databases and build tools ask for.
const OPEN_FILES: u64 = 65_536;

pub(super) fn set() -> Result<(), Failure> {
    // A host may pipe core files to a program of its own, outside the jail: none are made.
    in_step("limits", set_limit(Limit::CoreBytes, 0))?;
    in_step("limits", set_limit(Limit::OpenFiles, OPEN_FILES))
}
