//! Step: limits of single processes; those of the whole jail are in its cgroups. *After fork.*

use sys::limits::{Limit, set_limit};

use super::{Failure, in_step};

/// Descriptors one process may have open: what databases and build tools ask for.
const OPEN_FILES: u64 = 65_536;

/// Bytes of a core file. One is less than the kernel makes a file of, and is its sign for not
/// piping a core to a program of the host either, which zero does not prevent (core(5)).
const CORE_BYTES: u64 = 1;

/// Signals and POSIX timers that may wait for all processes of one id. Without a limit of ours a
/// jail makes as many timers as the host's memory suggests.
const PENDING_SIGNALS: u64 = 4_096;

/// Bytes that one process may lock into memory: what programs that keep keys there use. All of it
/// is the jail's memory anyway; locked, it could not be reclaimed.
const LOCKED_BYTES: u64 = 8 << 20;

/// Bytes of POSIX message queues: their calls are refused.
const QUEUE_BYTES: u64 = 0;

pub(super) fn set() -> Result<(), Failure> {
    in_step("limits", set_limit(Limit::CoreBytes, CORE_BYTES))?;
    in_step("limits", set_limit(Limit::OpenFiles, OPEN_FILES))?;
    in_step("limits", set_limit(Limit::PendingSignals, PENDING_SIGNALS))?;
    in_step("limits", set_limit(Limit::LockedBytes, LOCKED_BYTES))?;
    in_step("limits", set_limit(Limit::QueueBytes, QUEUE_BYTES))
}
