//! Programs that the kernel asks about each use of a device by a cgroup's processes.
//!
//! Owns: the shape of eBPF as bpf(2) takes it, as far as those programs need it. Does not know what
//! any of them should say.
//!
//! Sources: `bpf(2)`, linux/bpf.h, the kernel's Documentation/bpf/standardization/instruction-set.rst.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::{
    error::{SysError, check_small},
    fd::own,
};

/// One instruction of eBPF; the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do: one of the constants below.
    pub code: u8,
    /// The register that is written or compared in the low four bits, the one that is read in the
    /// high four.
    pub registers: u8,
    /// Bytes from an address, or instructions to skip.
    pub offset: i16,
    /// The operand.
    pub value: i32,
}

/// Loads the 32-bit word at an address into a register.
pub const LOAD: u8 = 0x61;
/// Keeps the bits of a register that are set in the operand.
pub const AND: u8 = 0x57;
/// Puts the operand into a register.
pub const SET: u8 = 0xb7;
/// Skips instructions when a register is not the operand.
pub const UNLESS_EQUAL: u8 = 0x55;
/// Ends the program; the answer is in register 0.
pub const EXIT: u8 = 0x95;

/// Where a program finds the kind of device (low 16 bits) and of use (high 16), from the address in
/// register 1; `struct bpf_cgroup_dev_ctx`.
pub const OFFSET_KIND: i16 = 0;
/// The same for the device's major number.
pub const OFFSET_MAJOR: i16 = 4;
/// The same for its minor number.
pub const OFFSET_MINOR: i16 = 8;

/// The kind of character devices.
pub const CHARACTER: i32 = 2;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
/// Both as a kind of program and as a place to attach one: linux/bpf.h.
const TYPE_CGROUP_DEVICE: u32 = 15;
const PLACE_CGROUP_DEVICE: u32 = 6;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; a shorter one is filled up with zeros.
#[repr(C)]
struct LoadArgs {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachArgs {
    target: u32,
    program: u32,
    place: u32,
    flags: u32,
}

/// Hands a program about devices to the kernel, which checks it: 1 in register 0 at its end allows
/// the use, 0 refuses it with `EPERM`.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`; `EINVAL` or `EACCES` for a program that the
/// kernel does not accept, or a kernel without `CONFIG_CGROUP_BPF`. Linux 4.15.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd, SysError> {
    const CALL: &str = "bpf(BPF_PROG_LOAD)";
    let too_long = SysError { call: CALL, errno: libc::E2BIG };
    let args = LoadArgs {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_too_many| too_long)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `args` begins a bpf_attr of the size passed, and the kernel reads no further; it names
    // `count` instructions of `program` and a C string, which both outlive the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const args, size_of_val(&args)) };
    check_small(CALL, ret).map(own)
}

/// Has `program` asked about every use of a device by processes of the v2 cgroup behind `directory`,
/// and of those below it, until the cgroup is gone. Takes the place of the one asked before.
///
/// # Errors
/// `EPERM` without the capabilities of [`load_device_program`], or where a cgroup above allows no
/// program below; `EBADF` when `directory` is no v2 cgroup.
pub fn attach_device_program(
    directory: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> Result<(), SysError> {
    let args = AttachArgs {
        target: directory.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        place: PLACE_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `args` begins a bpf_attr of the size passed; both descriptors are open while borrowed.
    let ret =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const args, size_of_val(&args)) };
    check_small("bpf(BPF_PROG_ATTACH)", ret).map(drop)
}

const _: () = assert!(size_of::<Instruction>() == 8);

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    fn answer(value: i32) -> [Instruction; 2] {
        [
            Instruction { code: SET, registers: 0, offset: 0, value },
            Instruction { code: EXIT, registers: 0, offset: 0, value: 0 },
        ]
    }

    #[test]
    fn the_kernel_takes_programs_that_answer_and_no_others() {
        load_device_program(&answer(1)).unwrap();
        // It would fall off its end.
        let endless = answer(1).into_iter().take(1).collect::<Vec<_>>();
        assert_eq!(load_device_program(&endless).unwrap_err().errno, libc::EINVAL);
        // It answers nothing.
        let silent = answer(1).into_iter().skip(1).collect::<Vec<_>>();
        assert_eq!(load_device_program(&silent).unwrap_err().errno, libc::EACCES);
    }

    #[test]
    fn only_a_cgroup_can_be_attached_to() {
        let program = load_device_program(&answer(0)).unwrap();
        let directory = File::open("/tmp").unwrap();
        let refused = attach_device_program(directory.as_fd(), program.as_fd());
        assert_eq!(refused.unwrap_err().errno, libc::EBADF);
    }
}
