//! What tells a process from a later one with the same number.

use std::{fs, io};

/// Clock ticks from boot to the start of process `pid`: field 22 of `/proc/PID/stat`, proc(5).
/// Launching and recovery compare what this returns, so there is one of it.
///
/// # Errors
/// When there is no such process; `InvalidData` when the file is not as documented.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The second field is the program's name in parentheses, in which anything can stand, so counting
/// begins after the last `)`.
pub(crate) fn parse(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_forge_its_start_time_by_its_name() {
        let after_name = "S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        for name in ["agent", "a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 (", ") ("] {
            assert_eq!(parse(&format!("12 ({name}) {after_name}")), Some(777), "{name}");
        }
        assert_eq!(parse("12 (agent"), None);
        assert_eq!(parse("12 (agent) S 1"), None);
    }
}
