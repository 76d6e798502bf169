//! Programs of the host that a launcher runs: for what happens once in a node's life, never for a
//! sandbox.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use sys::signal;

use crate::error::{InStep, JailError};

/// Runs `program` with `args` and `input`, and waits for it.
///
/// # Errors
/// When it is not installed, or ends with an error: then with the first line it wrote about it.
pub(crate) fn run<S: AsRef<OsStr>>(
    step: &str,
    (program, package): (&str, &str),
    args: &[S],
    input: &str,
) -> Result<(), JailError> {
    // The launcher lets the kernel reap its children; this one is waited for.
    signal::default_action(signal::SIGCHLD).in_step(step)?;
    let result = run_waiting(step, (program, package), args, input);
    signal::ignore_children().in_step(step)?;
    result
}

fn run_waiting<S: AsRef<OsStr>>(
    step: &str,
    (program, package): (&str, &str),
    args: &[S],
    input: &str,
) -> Result<(), JailError> {
    let failed =
        |what: &str, error: &io::Error| JailError::io(step, format!("{program}: {what}"), error);
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("start (is the package {package} installed?)"), &error))?;
    if let Some(mut stdin) = child.stdin.take()
        && !input.is_empty()
    {
        stdin.write_all(input.as_bytes()).map_err(|error| failed("send its input", &error))?;
    }
    let output = child.wait_with_output().map_err(|error| failed("wait", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().next().unwrap_or("no reason given").to_owned();
    Err(failed(&complaint, &io::ErrorKind::InvalidInput.into()))
}
