//! Which system calls a sandbox may make: `policies/seccomp.toml`, made into filters.
//!
//! Owns: reading and checking the policy, and the filters that carry it out. Does not know how a
//! jail is built, nor when a filter is loaded.
//!
//! Two filters, because filters add up and can never be taken off again. The launcher loads
//! [`agent_filter`] before it starts the agent, so that no process of the sandbox is ever without
//! it. The agent loads the other, [`HIDE_CLONE3`], in each command it starts: the policy's tests
//! hold it to what the policy says is the agent's alone. A third, of which the policy knows nothing,
//! refuses nothing: see [`sys::seccomp::listener`].

mod arch;
mod compile;
#[cfg(test)]
mod interpreter;
mod program;
#[cfg(test)]
mod tests;
mod text;

use sys::{
    SysError,
    seccomp::{HIDE_CLONE3, Instruction},
};

pub use arch::Arch;
use text::Policy;

/// The policy, with the reasons.
const TEXT: &str = include_str!("../../../policies/seccomp.toml");

/// The filter for the agent and everything it starts, on the machine this program was built for.
///
/// # Panics
/// Never in a build that passed its tests: the policy is part of the program and checked by them.
#[must_use]
pub fn agent_filter() -> Vec<Instruction> {
    compile(Arch::NATIVE)
}

/// The filter for the agent and everything it starts, on `arch`.
///
/// # Panics
/// As [`agent_filter`].
#[must_use]
pub fn compile(arch: Arch) -> Vec<Instruction> {
    compile::agent_filter(&policy(), arch)
}

/// Puts the calling thread, and all it starts from now on, under both filters and
/// `no_new_privs`, for ever: as user code is in a sandbox.
///
/// # Errors
/// When the kernel refuses a filter.
pub fn confine() -> Result<(), SysError> {
    sys::credentials::set_no_new_privileges()?;
    sys::seccomp::load(&agent_filter())?;
    sys::seccomp::load(&HIDE_CLONE3)
}

fn policy() -> Policy {
    Policy::parse(TEXT).expect("the policy is part of the program and its tests parse it")
}
