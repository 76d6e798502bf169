//! Going on as a process that stopped earlier, from a copy of its memory in a file.
//!
//! It is to a stopped process what `exec` is to a program: nothing of the caller goes on but its
//! descriptors, its ids, its limits and what else the kernel keeps for it.
//!
//! Owns: the few instructions that stop and go on. What is in the file, and whether it fits, is for
//! others to know.

use std::{
    convert::Infallible,
    num::NonZeroUsize,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::error::SysError;

/// Bytes in which a stopped process keeps its registers: see [`stop_code`].
pub const REGISTERS_BYTES: usize = 80;

/// A range of memory, in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: usize,
    /// Its bytes.
    pub length: NonZeroUsize,
    /// Where its contents begin in the file; none for zeros.
    pub offset: Option<u64>,
    /// It may be read.
    pub read: bool,
    /// It may be written. What is written stays in the process.
    pub write: bool,
    /// It may be run.
    pub execute: bool,
}

/// Pages of a process that it will write to soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soon {
    /// Where they begin.
    pub address: usize,
    /// Their bytes.
    pub length: usize,
}

// What a process runs to be stopped: `int stop(registers)`. It keeps its registers, stops itself
// for ever, and returns 1 in whoever goes on from a copy of its memory. It is data here: it is run
// elsewhere, at any address.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .rodata.sandbar_stop, \"a\", @progbits",
    // For this program alone, but for every unit that it is compiled in.
    ".globl sandbar_stop, sandbar_stop_end",
    ".hidden sandbar_stop, sandbar_stop_end",
    "sandbar_stop:",
    // What a called function must keep, in the order in which `go_on` reads it.
    "mov [rdi], rbx",
    "mov [rdi + 8], rbp",
    "mov [rdi + 16], r12",
    "mov [rdi + 24], r13",
    "mov [rdi + 32], r14",
    "mov [rdi + 40], r15",
    "mov [rdi + 48], rsp",
    "stmxcsr [rdi + 56]",
    "fnstcw [rdi + 60]",
    "lea rax, [rip + 3f]",
    "mov [rdi + 72], rax",
    // arch_prctl(ARCH_GET_FS, registers + 64)
    "lea rsi, [rdi + 64]",
    "mov edi, 0x1003",
    "mov eax, 158",
    "syscall",
    // kill(getpid(), SIGSTOP), again if somebody lets it continue
    "2:",
    "mov eax, 39",
    "syscall",
    "mov edi, eax",
    "mov esi, 19",
    "mov eax, 62",
    "syscall",
    "jmp 2b",
    "3:",
    "mov eax, 1",
    "ret",
    "sandbar_stop_end:",
    ".popsection",
);

/// Machine code of a C function `int stop(void *registers)` that runs at any address: it keeps the
/// caller's registers in [`REGISTERS_BYTES`] bytes, 16-aligned, stops the process, and returns 1 to
/// the same caller in whoever goes on with [`resume`]. None on other processors than x86-64.
#[must_use]
pub fn stop_code() -> Option<&'static [u8]> {
    #[cfg(target_arch = "x86_64")]
    {
        unsafe extern "C" {
            static sandbar_stop: u8;
            static sandbar_stop_end: u8;
        }
        let (start, end) = (&raw const sandbar_stop, &raw const sandbar_stop_end);
        let length = end.addr() - start.addr();
        // SAFETY: both are places in one section of this program, in this order, and what lies
        // between them is constant for as long as the program runs.
        Some(unsafe { std::slice::from_raw_parts(start, length) })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// What tells processors apart that do not run the same instructions: C libraries choose their
/// functions once, when a program starts, by the processor it starts on. Empty on others than x86-64.
#[must_use]
pub fn processor() -> Vec<u32> {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::__cpuid_count;
        let (model, extended, saved) =
            (__cpuid_count(1, 0), __cpuid_count(7, 0), __cpuid_count(0xd, 0));
        // Without what differs between the cores of one machine.
        vec![
            model.eax,
            model.ecx,
            model.edx,
            extended.ebx,
            extended.ecx,
            extended.edx,
            saved.eax,
            saved.ecx,
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Becomes the process whose memory is in `file` as `segments` say, and whose registers were kept
/// at `registers` by [`stop_code`]. Returns only when it cannot.
///
/// The segments are added to this process's memory, never in place of what is there; what the
/// process leaves is not taken away but is never used again. The pages of `soon` are its own when it
/// goes on, which costs less than their faults would. Signal handlers are the caller's
/// business: they belong to the past of this process. Only for a process with one thread.
///
/// # Errors
/// `EEXIST` where this process has memory of its own in the way: an exec gives it other addresses.
/// `EINVAL` for segments that are not in whole pages, for registers outside them, and on other
/// processors than x86-64; else those of `mmap(2)`.
pub fn resume(
    file: BorrowedFd<'_>,
    segments: &[Segment],
    soon: &[Soon],
    registers: usize,
) -> Result<Infallible, SysError> {
    let end = registers.checked_add(REGISTERS_BYTES);
    let holds = |segment: &Segment| {
        let after = segment.address.checked_add(segment.length.get());
        segment.read && segment.address <= registers && end.is_some() && end <= after
    };
    if !registers.is_multiple_of(16) || !segments.iter().any(holds) {
        return Err(SysError { call: "resume", errno: libc::EINVAL });
    }
    for segment in segments {
        map(file, segment)?;
    }
    for pages in soon {
        // What cannot be there now comes when it is touched.
        populate(pages).unwrap_or_default();
    }
    go_on(registers)
}

/// Adds one segment to this process's memory.
fn map(file: BorrowedFd<'_>, segment: &Segment) -> Result<(), SysError> {
    let mut access = libc::PROT_NONE;
    for (may, flag) in [
        (segment.read, libc::PROT_READ),
        (segment.write, libc::PROT_WRITE),
        (segment.execute, libc::PROT_EXEC),
    ] {
        access |= if may { flag } else { 0 };
    }
    let common = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    let (flags, fd, offset) = match segment.offset {
        Some(offset) => (common, file.as_raw_fd(), offset),
        None => (common | libc::MAP_ANONYMOUS, -1, 0),
    };
    let failed = |errno| SysError { call: "mmap", errno };
    let offset = libc::off_t::try_from(offset).map_err(|_large| failed(libc::EOVERFLOW))?;
    let address = ptr::without_provenance_mut(segment.address);
    // SAFETY: MAP_FIXED_NOREPLACE adds memory where there is none, so no memory that this program
    // uses changes.
    let mapped = unsafe { libc::mmap(address, segment.length.get(), access, flags, fd, offset) };
    if mapped == libc::MAP_FAILED { Err(SysError::last("mmap")) } else { Ok(()) }
}

/// Has pages of this process's memory be there, and be its own, before they are touched.
///
/// Source: `madvise(2)`, `MADV_POPULATE_WRITE`; Linux 5.14.
fn populate(pages: &Soon) -> Result<(), SysError> {
    let address = ptr::without_provenance_mut(pages.address);
    // SAFETY: it does what writing a byte of each page would do, but changes no byte, and fails where
    // that would be a fault.
    let done = unsafe { libc::madvise(address, pages.length, libc::MADV_POPULATE_WRITE) };
    if done == -1 { Err(SysError::last("madvise")) } else { Ok(()) }
}

/// Takes up the kept registers.
#[cfg(target_arch = "x86_64")]
fn go_on(registers: usize) -> Result<Infallible, SysError> {
    // SAFETY: `resume` has mapped the registers, and this program's memory is as it was. From the
    // first instruction on nothing of this program runs, reads or writes any more: as with exec,
    // another program goes on in this process, and what that does is no business of Rust's.
    unsafe {
        core::arch::asm!(
            "mov rbx, rdi",
            // arch_prctl(ARCH_SET_FS, kept)
            "mov rsi, [rbx + 64]",
            "mov edi, 0x1002",
            "mov eax, 158",
            "syscall",
            "mov rdi, rbx",
            "ldmxcsr [rdi + 56]",
            "fldcw [rdi + 60]",
            "mov rbp, [rdi + 8]",
            "mov r12, [rdi + 16]",
            "mov r13, [rdi + 24]",
            "mov r14, [rdi + 32]",
            "mov r15, [rdi + 40]",
            "mov rsp, [rdi + 48]",
            "mov rbx, [rdi]",
            "jmp [rdi + 72]",
            in("rdi") registers,
            options(noreturn),
        )
    }
}

/// Takes up the kept registers.
#[cfg(not(target_arch = "x86_64"))]
fn go_on(_registers: usize) -> Result<Infallible, SysError> {
    Err(SysError { call: "resume", errno: libc::EINVAL })
}
