//! Calls of other processes that the holder of a listener answers, `seccomp_unotify(2)`: statfs(2) and
//! fstatfs(2), which tell the size of a file system and what is left of it.
//!
//! Owns: the filter, its listener, and what goes through that. Does not know what is answered.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    ANSWER_ALLOW, ANSWER_ASK, IF_EQUAL, Instruction, LOAD, OFFSET_ARGUMENTS, OFFSET_NUMBER, RETURN,
    number_of, set_filter,
};
use crate::{
    error::{SysError, check, check_small},
    fd::own,
};

/// A third argument of statfs and fstatfs, which have two. The kernel does not look at it; the filter
/// lets such a call through: so who answers can ask the kernel, though it is under the filter too, and
/// can never come to wait for itself. It is no secret. Who else passes it is told the kernel's answer.
pub(crate) const UNASKED: u64 = 0x7361_6e64_6261_7221;

/// The halves of a mark as a filter compares them.
#[expect(clippy::cast_possible_truncation, reason = "that is what halves are")]
const fn halves(mark: u64) -> (u32, u32) {
    (mark as u32, (mark >> 32) as u32)
}

/// The third argument, low half and high half; see [`OFFSET_ARGUMENTS`].
const THIRD: (u32, u32) = (OFFSET_ARGUMENTS + 16, OFFSET_ARGUMENTS + 20);

/// Asks the listener about statfs and fstatfs, but for those with the mark, and allows everything else.
///
/// A constant, so that it can be loaded after fork. Calls of another ABI are the jail's filter's to kill.
pub static ASK_ABOUT_STATFS: [Instruction; 9] = [
    Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_NUMBER },
    Instruction { code: IF_EQUAL, jt: 1, jf: 0, k: number_of(libc::SYS_statfs) },
    Instruction { code: IF_EQUAL, jt: 0, jf: 5, k: number_of(libc::SYS_fstatfs) },
    Instruction { code: LOAD, jt: 0, jf: 0, k: THIRD.0 },
    Instruction { code: IF_EQUAL, jt: 0, jf: 2, k: halves(UNASKED).0 },
    Instruction { code: LOAD, jt: 0, jf: 0, k: THIRD.1 },
    Instruction { code: IF_EQUAL, jt: 1, jf: 0, k: halves(UNASKED).1 },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ASK },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ALLOW },
];

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Names it; never used again.
    pub id: u64,
    /// The thread that makes it, as the listener's holder sees process ids. Its number may become
    /// another's when the caller is killed: see [`is_waiting`].
    pub thread: u32,
    /// What it is about.
    pub subject: Subject,
    /// Address, in the caller's memory, where it wants the answer.
    pub buffer: u64,
}

/// What a call asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The file at the path at this address in the caller's memory.
    Path(u64),
    /// This descriptor of the caller's.
    Descriptor(u32),
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It succeeds; what it was to write has been written.
    Done,
    /// The kernel carries it out as if there had been no filter.
    GoOn,
}

/// Puts the calling thread, and all it starts from now on, under `program`, for ever, and returns the
/// listener that is asked. Once a call has been received, only a signal that kills ends its waiting:
/// so nobody writes to a buffer that its owner has left. *After fork.*
///
/// # Errors
/// `EBUSY` when the thread is under a filter that has a listener; else as [`super::load`].
///
/// Source: seccomp(2), Linux 5.0; `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19.
pub fn load(program: &[Instruction]) -> Result<OwnedFd, SysError> {
    const FLAGS: libc::c_ulong =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let listener = set_filter(program, FLAGS)?;
    check_small("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)", listener).map(own)
}

/// Takes the next call. Waits for one, unless the listener is readable; then there may be none all the
/// same, when its caller has just gone.
///
/// # Errors
/// As `SECCOMP_IOCTL_NOTIF_RECV`.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Call>, SysError> {
    let mut notice = MaybeUninit::<libc::seccomp_notif>::zeroed();
    let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
    // SAFETY: the ioctl reads and writes one seccomp_notif, for which there is room and whose length is
    // part of its number; it wants it zeroed, which it is.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), request, notice.as_mut_ptr()) };
    match check("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", ret) {
        Err(SysError { errno: libc::ENOENT | libc::EINTR, .. }) => return Ok(None),
        other => other?,
    };
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    let libc::seccomp_notif { id, pid, data, .. } = unsafe { notice.assume_init() };
    let [first, buffer, ..] = data.args;
    let subject = if libc::c_long::from(data.nr) == libc::SYS_fstatfs {
        // The kernel looks at an unsigned int.
        Subject::Descriptor(halves(first).0)
    } else {
        Subject::Path(first)
    };
    Ok(Some(Call { id, thread: pid, subject, buffer }))
}

/// True while the call of this id waits: what was opened by its thread's number before is its caller's.
#[must_use]
pub fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
    // SAFETY: the ioctl reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw const id) == 0 }
}

/// Ends the waiting of the call of this id.
///
/// # Errors
/// `ENOENT` when its caller has gone.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), SysError> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 1")]
    const GO_ON: u32 = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let flags = match answer {
        Answer::Done => 0,
        Answer::GoOn => GO_ON,
    };
    let answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
    // SAFETY: the ioctl reads one seccomp_notif_resp, whose length is part of its number.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw const answer) };
    check("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", ret).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        os::fd::AsFd,
        sync::mpsc,
        thread::{self, JoinHandle},
    };

    use super::*;
    use crate::{credentials::set_no_new_privileges, file_system, poll};

    type Asked = Result<[u64; 15], i32>;

    /// statfs as a C library makes it, without the mark.
    fn statfs(path: &CString) -> Asked {
        let mut answer = [0_u64; 15];
        // SAFETY: a valid C string, and room for a statfs, which is that long.
        let ret =
            unsafe { libc::syscall(libc::SYS_statfs, path.as_ptr(), answer.as_mut_ptr(), 0_u64) };
        check("statfs", ret).map(|_| answer).map_err(|error| error.errno)
    }

    /// A thread under the filter, because a filter is for ever, that asks about `path`; and what both
    /// ends of it see.
    fn ask(path: &'static str) -> (OwnedFd, JoinHandle<(Asked, bool)>) {
        let (sender, receiver) = mpsc::channel();
        let asking = thread::spawn(move || {
            set_no_new_privileges().expect("the kernel is newer than 3.5");
            sender.send(load(&ASK_ABOUT_STATFS).expect("nobody else listens")).unwrap();
            let path = CString::new(path).unwrap();
            // With the mark nobody is asked.
            let unasked = file_system::at(&path).is_ok();
            (statfs(&path), unasked)
        });
        (receiver.recv().unwrap(), asking)
    }

    #[test]
    fn a_call_waits_for_its_answer() {
        let (listener, asking) = ask("/proc");
        assert!(poll::wait_readable(listener.as_fd(), 60_000).unwrap());
        let call = receive(listener.as_fd()).unwrap().expect("it waits");
        assert!(matches!(call.subject, Subject::Path(_)) && call.buffer != 0);
        assert!(is_waiting(listener.as_fd(), call.id));
        assert!(!poll::wait_readable(listener.as_fd(), 0).unwrap());

        answer(listener.as_fd(), call.id, Answer::Done).unwrap();

        assert_eq!(asking.join().unwrap(), (Ok([0; 15]), true));
        assert!(!is_waiting(listener.as_fd(), call.id));
        let late = answer(listener.as_fd(), call.id, Answer::Done).unwrap_err();
        assert_eq!(late.errno, libc::ENOENT);
    }

    #[test]
    fn the_kernel_answers_what_goes_on() {
        for (path, expected) in [("/proc", Ok(0x9fa0)), ("/none/such", Err(libc::ENOENT))] {
            let (listener, asking) = ask(path);
            let call = receive(listener.as_fd()).unwrap().expect("it waits");
            answer(listener.as_fd(), call.id, Answer::GoOn).unwrap();
            let (asked, unasked) = asking.join().unwrap();
            assert_eq!(asked.map(|answer| answer[0]), expected);
            assert_eq!(unasked, expected.is_ok());
        }
    }

    #[test]
    fn one_listener_is_all_that_the_kernel_allows() {
        let errors = thread::spawn(|| {
            set_no_new_privileges().expect("the kernel is newer than 3.5");
            let first = load(&ASK_ABOUT_STATFS);
            (first.is_ok(), load(&ASK_ABOUT_STATFS).map_err(|error| error.errno).map(drop))
        });
        assert_eq!(errors.join().unwrap(), (true, Err(libc::EBUSY)));
    }
}
