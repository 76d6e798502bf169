//! Runs a program under the system call policy and nothing else of a jail, to try a change of the
//! policy on real programs: `cargo run -p jail --example confined -- git status`.

use std::{env, error::Error, os::unix::process::CommandExt, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().ok_or("which program shall run?")?;
    jail::policy::confine()?;
    Err(Command::new(program).args(arguments).exec().into())
}
