//! Conversations with the kernel over netlink: one request at a time, each waited for.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, OwnedFd},
};

use sys::{SysError, errno, netlink};

use super::message::{Answer, Message, answers};

/// Bytes of one datagram of answers. The kernel makes them of 32 KiB at most, and repeats a refused
/// request, which is no longer than 64 KiB.
const DATAGRAM_BYTES: usize = 128 * 1024;

/// A socket to one part of the kernel.
#[derive(Debug)]
pub(super) struct Socket {
    netlink: OwnedFd,
    /// Of the last request. Answers to an earlier one, which was refused halfway, are passed over.
    sequence: Cell<u32>,
    /// Where answers are put.
    datagram: RefCell<Vec<u8>>,
}

impl Socket {
    pub(super) fn open(family: netlink::Family) -> Result<Self, SysError> {
        let datagram = RefCell::new(vec![0; DATAGRAM_BYTES]);
        Ok(Self { netlink: netlink::open(family)?, sequence: Cell::new(0), datagram })
    }

    /// Has one request carried out.
    pub(super) fn ask(&self, request: Message) -> Result<(), SysError> {
        self.converse(&[request], 1, |_| ())
    }

    /// Has requests carried out that go in one datagram, and expects an answer to `answered` of them.
    pub(super) fn ask_all(&self, requests: &[Message], answered: usize) -> Result<(), SysError> {
        self.converse(requests, answered, |_| ())
    }

    /// What there is under the name in a request. None: there is no such thing.
    pub(super) fn find(&self, request: Message) -> Result<Option<Vec<u8>>, SysError> {
        let mut found = None;
        match self.converse(&[request], 1, |body| found = Some(body.to_vec())) {
            Err(error) if error.errno == errno::ENOENT => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Everything that a request with [`super::message::DUMP`] lists.
    pub(super) fn list(&self, request: Message) -> Result<Vec<Vec<u8>>, SysError> {
        let mut all = Vec::new();
        match self.converse(&[request], 1, |body| all.push(body.to_vec())) {
            Err(error) if error.errno == errno::ENOENT => Ok(Vec::new()),
            other => other.map(|()| all),
        }
    }

    fn converse(
        &self,
        requests: &[Message],
        expected: usize,
        mut hear: impl FnMut(&[u8]),
    ) -> Result<(), SysError> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let number = |request: &Message| request.clone().numbered(sequence).bytes().to_vec();
        let bytes: Vec<u8> = requests.iter().flat_map(number).collect();
        netlink::send(self.netlink.as_fd(), &bytes)?;
        let mut datagram = self.datagram.borrow_mut();
        let mut done = 0;
        while done < expected {
            let length = netlink::receive(self.netlink.as_fd(), &mut datagram)?;
            let heard = datagram.get(..length).unwrap_or_default();
            for (_, answer) in answers(heard).filter(|(number, _)| *number == sequence) {
                match answer {
                    Answer::Done => done += 1,
                    Answer::Refused(errno) => return Err(SysError { call: "netlink", errno }),
                    Answer::Data(body) => hear(body),
                }
            }
        }
        Ok(())
    }
}
