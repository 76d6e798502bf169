//! Step: calls that the agent answers, which tell programs about the room on their disk. *After fork.*

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::{SysError, errno::EBUSY, seccomp::listener};

use super::{Failure, Mounts, Plan, in_step};

/// What the agent needs to answer.
pub(super) struct Asked<'a> {
    /// See [`crate::volume::Volume::charge`].
    charge: [&'a OwnedFd; 2],
    listener: OwnedFd,
}

impl Asked<'_> {
    /// In the order of [`crate::handoff::Room`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let [charged, waiting] = self.charge;
        [charged.as_fd(), waiting.as_fd(), self.listener.as_fd()]
    }
}

/// Has calls wait for the agent, itself and whatever it starts: it is under the filter from its first
/// instruction, so nothing it starts is not.
///
/// None where the kernel does not tell what to answer, or where a program outside, which started the
/// server, listens to its calls: the kernel allows one. The kernel answers then.
pub(super) fn ask_agent<'a>(
    plan: &Plan<'_>,
    mounts: &'a Mounts,
) -> Result<Option<Asked<'a>>, Failure> {
    let mut charge = mounts.iter().flatten().skip(BEFORE_BINDS + plan.binds.len());
    let (true, Some(charged), Some(waiting)) = (plan.has_room, charge.next(), charge.next()) else {
        return Ok(None);
    };
    match listener::load(&listener::ASK_ABOUT_STATFS) {
        Err(SysError { errno: EBUSY, .. }) => Ok(None),
        listener => {
            let listener = in_step("room", listener)?;
            Ok(Some(Asked { charge: [charged, waiting], listener }))
        }
    }
}

/// What comes before binds in [`Mounts`].
const BEFORE_BINDS: usize = 3;
