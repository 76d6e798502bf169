//! The second lock on devices: whatever node came to be inside a jail, by an image or a fault, only
//! those that a jail has can be opened. The first lock is that nodes cannot be made (no `MKNOD`) and
//! that no mount but `/dev` minds them (`nodev`).
//!
//! It is a program that the kernel asks, attached to the node's cgroup in the v2 tree, with or without
//! controllers there, and so in force in every jail below from its first instruction; making a jail
//! costs nothing more. It stays as long as that cgroup, also when no server runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::{
    SysError,
    bpf::{self, Instruction},
};

/// The character devices that processes of a jail may use: its own nodes (see [`crate::rootfs`]), and
/// its terminals, whose numbers devpts gives out below one major number.
const ALLOWED: [(i32, Option<i32>); 8] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(2)), // ptmx
    (136, None),  // pts/N
];

/// Has the kernel ask the program for every jail of the node whose v2 cgroup is `directory`.
pub(super) fn lock(directory: BorrowedFd<'_>) -> Result<(), SysError> {
    bpf::attach_device_program(directory, program()?.as_fd())
}

/// The program, known to the kernel.
pub(crate) fn program() -> Result<OwnedFd, SysError> {
    bpf::load_device_program(&instructions())
}

/// Load what is asked; refuse what is no character device; then each device that is allowed; refuse.
fn instructions() -> Vec<Instruction> {
    // Of the registers, 0 has the answer and 1 the address of what is asked.
    let (answer, asked, kind, major, minor) = (0, 1, 2, 3, 4);
    let one = |code, registers, offset, value| Instruction { code, registers, offset, value };
    let load = |register, offset| one(bpf::LOAD, register | asked << 4, offset, 0);
    let unless = |register, value, skip| one(bpf::UNLESS_EQUAL, register, skip, value);
    let end = |value| [one(bpf::SET, answer, 0, value), one(bpf::EXIT, 0, 0, 0)];

    let mut choice = Vec::new();
    for (its_major, its_minor) in ALLOWED {
        if let Some(its_minor) = its_minor {
            choice.push(unless(major, its_major, 3));
            choice.push(unless(minor, its_minor, 2));
        } else {
            choice.push(unless(major, its_major, 2));
        }
        choice.extend(end(1));
    }
    let whole_choice = i16::try_from(choice.len()).unwrap_or(i16::MAX);
    let mut program = vec![
        load(kind, bpf::OFFSET_KIND),
        // How it is used is above these bits, and does not matter.
        one(bpf::AND, kind, 0, 0xffff),
        load(major, bpf::OFFSET_MAJOR),
        load(minor, bpf::OFFSET_MINOR),
        unless(kind, bpf::CHARACTER, whole_choice),
    ];
    program.extend(choice);
    program.extend(end(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says about a use, by the meaning that its few instructions have.
    fn answer(kind: i32, major: i32, minor: i32) -> i32 {
        let program = instructions();
        let mut registers = [0; 5];
        let mut at = 0;
        loop {
            let Instruction { code, registers: both, offset, value } = program[at];
            let register = &mut registers[usize::from(both & 15)];
            at += 1;
            match code {
                bpf::LOAD => {
                    *register = match offset {
                        bpf::OFFSET_KIND => kind,
                        bpf::OFFSET_MAJOR => major,
                        bpf::OFFSET_MINOR => minor,
                        other => panic!("nothing is at {other}"),
                    }
                }
                bpf::AND => *register &= value,
                bpf::SET => *register = value,
                bpf::UNLESS_EQUAL if *register != value => at += usize::try_from(offset).unwrap(),
                bpf::UNLESS_EQUAL => {}
                bpf::EXIT => return registers[0],
                other => panic!("no such code: {other:#x}"),
            }
        }
    }

    #[test]
    fn a_jail_s_own_devices_are_allowed_and_no_others() {
        const READ: i32 = 2 << 16;
        const CHARACTER: i32 = READ | 2;
        const BLOCK: i32 = READ | 1;
        let own = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 127)];
        for major in 0..300 {
            for minor in 0..300 {
                let allowed = i32::from(own.contains(&(major, minor)) || major == 136);
                assert_eq!(answer(CHARACTER, major, minor), allowed, "c {major} {minor}");
                assert_eq!(answer(BLOCK, major, minor), 0, "b {major} {minor}");
            }
        }
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        program().unwrap();
    }
}
