//! Step: limits of single processes; those of the whole jail are in its cgroups. *After fork.*

use sys::limits::{Limit, set_limit};

use super::{Failure, in_step};

/// Descriptors one process may have open: what databases and build tools ask for.
const OPEN_FILES: u64 = 65_536;

/// Bytes of a core file. One is less than the kernel makes a file of, and is its sign for not
/// piping a core to a program of the host either, which zero does not prevent (core(5)).
const CORE_BYTES: u64 = 1;

pub(super) fn set() -> Result<(), Failure> {
    in_step("limits", set_limit(Limit::CoreBytes, CORE_BYTES))?;
    in_step("limits", set_limit(Limit::OpenFiles, OPEN_FILES))
}
