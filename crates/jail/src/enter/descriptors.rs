//! Step: the descriptors that the agent inherits, and no others. *After fork.*

use std::os::fd::{AsFd, OwnedFd, RawFd};

use sys::{
    SysError, fd,
    file::{self, How},
};

use super::{Failure, Mounts, Plan, in_step, room::Asked};

/// The first inherited descriptor; 0, 1 and 2 are `/dev/null`.
pub(crate) const FIRST: RawFd = 3;

/// Numbers from here on are free for intermediate copies: more than a handoff has descriptors.
const ABOVE: RawFd = 64;

/// Puts the agent's descriptors in their places, behind them the directory of the figures, the socket
/// that is shown refusals and what `room` needs, and marks all others to close. Returns the agent's
/// program, which is open under a number that closes.
pub(super) fn arrange(
    plan: &Plan<'_>,
    mounts: &Mounts,
    refusals: &OwnedFd,
    room: Option<&Asked<'_>>,
) -> Result<OwnedFd, Failure> {
    in_step("descriptors", arrange_all(plan, mounts, refusals, room))
}

fn arrange_all(
    plan: &Plan<'_>,
    mounts: &Mounts,
    refusals: &OwnedFd,
    room: Option<&Asked<'_>>,
) -> Result<OwnedFd, SysError> {
    let [_, _, figures, ..] = mounts;
    let program = fd::duplicate_above(plan.program, ABOVE)?;
    let null = file::open(file::cwd(), c"/dev/null", How::new(file::O_RDWR))?;
    let null = fd::duplicate_above(null.as_fd(), ABOVE)?;
    // Every source is moved out of the way before any target is overwritten.
    let mut copies: [Option<OwnedFd>; sys::socket::MESSAGE_FDS] =
        [const { None }; sys::socket::MESSAGE_FDS];
    let room = room.map_or([null.as_fd(); 3], Asked::descriptors);
    let room = room.into_iter().filter(|_| plan.has_room);
    let made_here = figures.iter().chain([refusals]).map(AsFd::as_fd).chain(room);
    let sources = plan.inherited.iter().copied().chain(made_here);
    for (slot, source) in copies.iter_mut().zip(sources) {
        *slot = Some(fd::duplicate_above(source, ABOVE)?);
    }
    for target in 0..FIRST {
        fd::inherit_as(null.as_fd(), target)?;
    }
    let mut target = FIRST;
    for copy in copies.iter().flatten() {
        fd::inherit_as(copy.as_fd(), target)?;
        target += 1;
    }
    fd::close_on_exec_from(target)?;
    // Their numbers may now belong to the agent's descriptors or close at exec: not to be closed.
    std::mem::forget(copies);
    std::mem::forget(null);
    Ok(program)
}
