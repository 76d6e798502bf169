//! What the launcher and a jail's first processes say to each other.
//!
//! ```text
//! first ──'U'──► launcher      the user namespace exists
//! first ◄──'M'── launcher      its maps are written
//! first ──'P' pid + handle──► launcher  PID 1 exists
//! second ◄─'G' + mounts── launcher
//! second ◄─'L'── launcher      the network link exists
//! either ──'E' step 0 call 0 errno──► launcher
//! ```
//!
//! One packet each; the kernel keeps the boundaries. *After fork* on the jail's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::{SysError, socket};

use super::Mounts;

pub(crate) const USER_NAMESPACE: u8 = b'U';
pub(crate) const MAPS: u8 = b'M';
pub(crate) const PID: u8 = b'P';
pub(crate) const MOUNTS: u8 = b'G';
pub(crate) const LINK: u8 = b'L';
pub(crate) const ERROR: u8 = b'E';

/// Bytes of one packet at most; a longer error text is cut.
pub(crate) const PACKET_BYTES: usize = 256;

/// errno(3), "protocol error": the other side said something unexpected, or is gone.
const EPROTO: i32 = 71;

/// The jail's end of the channel.
pub(crate) struct Channel(pub(crate) OwnedFd);

impl Channel {
    fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Tells that the user namespace exists and waits for its maps.
    pub(crate) fn ask_for_maps(&self) -> Result<(), SysError> {
        socket::send(self.socket(), &[USER_NAMESPACE], &[])?;
        self.expect(MAPS).map(drop)
    }

    /// Tells the process id of the jail's PID 1, as the host sees it, with the handle that was made
    /// with the process: a number alone may be another's by the time it is looked up.
    pub(crate) fn tell_pid(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), SysError> {
        let [a, b, c, d] = pid.to_ne_bytes();
        socket::send(self.socket(), &[PID, a, b, c, d], &[pidfd])
    }

    /// Waits until the network link exists, if the jail has one.
    pub(crate) fn wait_for_link(&self) -> Result<(), SysError> {
        self.expect(LINK).map(drop)
    }

    /// Waits for the mounts, with which everything else that was to be done before is done.
    pub(crate) fn wait_for_mounts(&self) -> Result<Mounts, SysError> {
        self.expect(MOUNTS)
    }

    fn expect(&self, kind: u8) -> Result<Mounts, SysError> {
        let mut packet = [0; PACKET_BYTES];
        let (length, fds) = socket::receive(self.socket(), &mut packet)?;
        if length == 1 && packet[0] == kind {
            Ok(fds)
        } else {
            Err(SysError { call: "wait for the launcher", errno: EPROTO })
        }
    }

    /// Reports a failed step. If even that fails, the launcher sees the channel close too early.
    pub(crate) fn report(&self, step: &str, error: SysError) {
        let mut packet = [0; PACKET_BYTES];
        let mut length = 0;
        let texts = [&[ERROR][..], step.as_bytes(), &[0], error.call.as_bytes(), &[0]];
        for byte in texts.iter().flat_map(|text| text.iter()) {
            if length < PACKET_BYTES - size_of::<i32>() {
                packet[length] = *byte;
                length += 1;
            }
        }
        for byte in error.errno.to_ne_bytes() {
            packet[length] = byte;
            length += 1;
        }
        let packet = packet.get(..length).unwrap_or_default();
        socket::send(self.socket(), packet, &[]).unwrap_or_default();
    }
}
