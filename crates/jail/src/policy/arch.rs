//! The ABIs a filter can be made for.

use syscalls::{aarch64, x86_64};

/// An architecture that sandboxes run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, 64-bit calls only.
    X86_64,
    /// arm64, little-endian, 64-bit calls only.
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The one this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The kernel's name for the ABI (`AUDIT_ARCH_*`, linux/audit.h): the ELF machine, with bits
    /// for 64-bit and little-endian.
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Names and numbers of the calls that this build knows, by number.
    #[must_use]
    pub fn calls(self) -> Vec<(&'static str, u32)> {
        let (last, name): (i32, fn(usize) -> Option<&'static str>) = match self {
            Self::X86_64 => {
                (x86_64::Sysno::last().id(), |id| x86_64::Sysno::new(id).map(|call| call.name()))
            }
            Self::Aarch64 => {
                (aarch64::Sysno::last().id(), |id| aarch64::Sysno::new(id).map(|call| call.name()))
            }
        };
        // Not the tables' own iterators: those of syscalls 0.8 leave out the last call.
        let last = u32::try_from(last).unwrap_or(0);
        (0..=last)
            .filter_map(|number| Some((name(usize::try_from(number).ok()?)?, number)))
            .collect()
    }

    /// A bit that tells the numbers of another ABI under the same name: x32 on x86-64.
    pub(super) fn foreign_bit(self) -> Option<u32> {
        match self {
            Self::X86_64 => Some(0x4000_0000),
            Self::Aarch64 => None,
        }
    }
}
