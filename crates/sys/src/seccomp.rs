//! Seccomp filters: the instructions they are made of, loading one, and the one filter that needs
//! no policy to be written.
//!
//! Owns: the shape of classic BPF as seccomp(2) takes it. Does not know what any other filter
//! should say. Calls that a process answers are in [`listener`].

use std::{ffi::c_ulong, ptr};

use crate::{SysError, error::check};

pub mod listener;

/// One instruction of classic BPF; the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// What to do: one of the constants below.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Loads the 32-bit word at byte `k` of `struct seccomp_data` into the accumulator.
pub const LOAD: u16 = 0x20;
/// Keeps the accumulator's bits that are set in `k`.
pub const AND: u16 = 0x54;
/// Skips `k` instructions.
pub const JUMP: u16 = 0x05;
/// Compares: is the accumulator `k`?
pub const IF_EQUAL: u16 = 0x15;
/// Compares: is the accumulator `k` or more?
pub const IF_AT_LEAST: u16 = 0x35;
/// Compares: has the accumulator a bit of `k`?
pub const IF_ANY_BIT: u16 = 0x45;
/// Ends the program with the answer `k`.
pub const RETURN: u16 = 0x06;

/// The number of the call, in `struct seccomp_data`.
pub const OFFSET_NUMBER: u32 = 0;
/// The ABI of the call (`AUDIT_ARCH_*`), in `struct seccomp_data`.
pub const OFFSET_ARCH: u32 = 4;
/// The first argument, in `struct seccomp_data`; each takes 8 bytes, low word first on the
/// little-endian machines this is built for.
pub const OFFSET_ARGUMENTS: u32 = 16;

/// The call is made.
pub const ANSWER_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
/// The call fails with the error number in the low 16 bits.
pub const ANSWER_ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
/// The call waits for whoever has the filter's [`listener`]; `ENOSYS` when nobody has it.
pub const ANSWER_ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
/// The process dies of SIGSYS.
pub const ANSWER_KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// Most instructions that the kernel takes in one filter (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Answers ENOSYS to clone3 and allows everything else.
///
/// Flags of clone3 lie in memory, where a filter cannot look, so a jail's filter must allow it
/// whole to the process that starts commands, and what is started must not have it. C libraries
/// fall back to clone, whose flags a filter does see. clone3 has one number on every architecture;
/// calls of another ABI are the jail's filter's to kill.
///
/// A constant, so that it can be loaded between fork and exec, in a process without the policy.
pub static HIDE_CLONE3: [Instruction; 4] = [
    Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_NUMBER },
    Instruction { code: IF_EQUAL, jt: 0, jf: 1, k: 435 },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ERRNO | libc::ENOSYS.cast_unsigned() },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ALLOW },
];

/// The filter that keeps a thread of the host's from starting programs and from the memory of other
/// processes: those calls fail with `EPERM`.
pub static NO_PROGRAMS: [Instruction; 8] = [
    Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_NUMBER },
    Instruction { code: IF_EQUAL, jt: 4, jf: 0, k: number_of(libc::SYS_execve) },
    Instruction { code: IF_EQUAL, jt: 3, jf: 0, k: number_of(libc::SYS_execveat) },
    Instruction { code: IF_EQUAL, jt: 2, jf: 0, k: number_of(libc::SYS_ptrace) },
    Instruction { code: IF_EQUAL, jt: 1, jf: 0, k: number_of(libc::SYS_process_vm_readv) },
    Instruction { code: IF_EQUAL, jt: 0, jf: 1, k: number_of(libc::SYS_process_vm_writev) },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ERRNO | libc::EPERM.cast_unsigned() },
    Instruction { code: RETURN, jt: 0, jf: 0, k: ANSWER_ALLOW },
];

/// A call's number as a filter sees it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of calls are small and not negative"
)]
pub(crate) const fn number_of(call: libc::c_long) -> u32 {
    call as u32
}

/// Puts the calling thread, and all it starts from now on, under `program`, for ever.
///
/// Filters add up: of several, the strictest answer counts. *After fork.*
///
/// # Errors
/// `EINVAL` for a program that is empty, too long or malformed; `EACCES` without
/// [`set_no_new_privileges`](crate::credentials::set_no_new_privileges) and without `CAP_SYS_ADMIN`.
pub fn load(program: &[Instruction]) -> Result<(), SysError> {
    set_filter(program, 0).map(drop)
}

/// Returns what the kernel does: a descriptor where `flags` ask for one.
fn set_filter(program: &[Instruction], flags: c_ulong) -> Result<libc::c_long, SysError> {
    const CALL: &str = "seccomp(SECCOMP_SET_MODE_FILTER)";

    let Ok(len) = u16::try_from(program.len()) else {
        return Err(SysError { call: CALL, errno: libc::EINVAL });
    };
    // `struct sock_fprog` holds a pointer to mutable, though the kernel only reads through it.
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads one `sock_fprog` from the pointer, which is to a live local, and
    // then `len` instructions from `filter.filter`, which is the start of the borrowed slice of
    // exactly that length; `Instruction` has the layout of `sock_filter` (asserted below). It
    // copies both and keeps neither. Nothing is written to our memory. A filter can make later
    // calls of this thread fail, which every caller of a kernel call must expect anyway.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, ptr::from_ref(&filter)) };
    check(CALL, result)
}

const _: () = {
    assert!(libc::SYS_clone3 == 435);
    assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
    assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());
    assert!(
        std::mem::offset_of!(Instruction, code) == std::mem::offset_of!(libc::sock_filter, code)
    );
    assert!(std::mem::offset_of!(Instruction, jt) == std::mem::offset_of!(libc::sock_filter, jt));
    assert!(std::mem::offset_of!(Instruction, jf) == std::mem::offset_of!(libc::sock_filter, jf));
    assert!(std::mem::offset_of!(Instruction, k) == std::mem::offset_of!(libc::sock_filter, k));
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::set_no_new_privileges;

    fn answer(k: u32) -> Instruction {
        Instruction { code: RETURN, jt: 0, jf: 0, k }
    }

    /// Runs `body` in a thread of its own, because a filter is for ever.
    fn in_a_thread<T: Send + 'static>(body: fn() -> T) -> T {
        std::thread::spawn(body).join().expect("the thread ends by returning")
    }

    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.expect("the field exists").trim().to_owned()
    }

    #[test]
    fn a_loaded_filter_answers_calls() {
        let (before, after, filters) = in_a_thread(|| {
            let number = u32::try_from(libc::SYS_sched_rr_get_interval).expect("a small number");
            let program = [
                Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_NUMBER },
                Instruction { code: IF_EQUAL, jt: 0, jf: 1, k: number },
                answer(ANSWER_ERRNO | 77),
                answer(ANSWER_ALLOW),
            ];
            let call = || {
                // SAFETY: with a null pointer for its result the call fails with EFAULT, or with
                // the filter's error before that; it never writes.
                unsafe { libc::sched_rr_get_interval(0, ptr::null_mut()) };
                SysError::last("sched_rr_get_interval").errno
            };
            let before = call();
            set_no_new_privileges().expect("the kernel is newer than 3.5");
            load(&program).expect("the program is well formed");
            (before, call(), status("Seccomp_filters:"))
        });
        assert_eq!((before, after), (libc::EFAULT, 77));
        assert_eq!(filters, "1");
    }

    #[test]
    fn malformed_programs_are_refused() {
        let errors = in_a_thread(|| {
            set_no_new_privileges().expect("the kernel is newer than 3.5");
            let endless = [Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_NUMBER }];
            let astray = [Instruction { code: JUMP, jt: 0, jf: 0, k: 9 }, answer(ANSWER_ALLOW)];
            let long = vec![answer(ANSWER_ALLOW); MAX_INSTRUCTIONS + 1];
            let too_long = vec![answer(ANSWER_ALLOW); usize::from(u16::MAX) + 2];
            [&[][..], &endless, &astray, &long, &too_long]
                .map(|program| load(program).map_err(|error| error.errno))
        });
        assert_eq!(errors, [Err(libc::EINVAL); 5]);
    }
}
