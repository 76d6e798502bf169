//! Places where a test has this process killed, held up, or refused what it asks for.
//!
//! ```text
//! test:    write "error" to STATE/failpoints/record.create, ask for a sandbox
//! product: failpoint!("record.create")?  ─▶ takes the file away ─▶ an I/O error, once
//! ```
//!
//! A point stands where an effect begins or has ended: at a write of the records, at a request to a
//! launcher, at a step of the jail. Between two effects nothing happens that a crash could tear, so
//! more places would be the same places again.
//!
//! Only programs with debug assertions have points; in others [`hit`] is empty and the name is never
//! made. `scripts/build` looks for that in the binary that is released.
//!
//! What is armed is a file, because it is for processes that inherit nothing: launchers have no
//! environment, and a point must be found by whoever comes to it first, in whatever process.

#![forbid(unsafe_code)]

/// The point with this name, as in `format!`. `Ok` unless a test has it fail.
#[macro_export]
macro_rules! failpoint {
    ($($name:tt)+) => {
        $crate::hit(::core::format_args!($($name)+))
    };
}

#[cfg(debug_assertions)]
pub use armed::{arm_steps, hit, step, watch};
#[cfg(not(debug_assertions))]
pub use unarmed::{arm_steps, hit, step, watch};

#[cfg(not(debug_assertions))]
mod unarmed {
    use std::{fmt::Arguments, path::Path};

    use sys::SysError;

    /// Nothing: this program has no points.
    pub fn watch(_state_dir: &Path) {}

    /// Nothing: this program has no points.
    ///
    /// # Errors
    /// None.
    #[inline]
    pub fn hit(_name: Arguments<'_>) -> Result<(), SysError> {
        Ok(())
    }

    /// Nothing: this program has no points.
    pub fn arm_steps() {}

    /// Nothing: this program has no points.
    ///
    /// # Errors
    /// None.
    #[inline]
    pub fn step(_name: &str) -> Result<(), SysError> {
        Ok(())
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        fmt::Arguments,
        fs,
        io::Write,
        os::fd::AsFd,
        path::{Path, PathBuf},
        sync::{
            OnceLock,
            atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
        },
        time::{Duration, Instant},
    };

    use sys::SysError;

    /// Below the state directory: one file per armed point, and `trace`, if a test made one, to which
    /// the name of every point that is hit is added.
    const DIRECTORY: &str = "failpoints";

    /// What the names of the steps of a jail begin with.
    const STEP_PREFIX: &str = "enter.";

    /// Between looks whether a test lets go. There is no event that all these processes could wait
    /// for.
    const LOOK: Duration = Duration::from_millis(1);

    /// How long a point holds up at most: a test that forgets it does not hang.
    const LONGEST_HOLD: Duration = Duration::from_secs(20);

    /// How long a step of a jail is held up: well within what the launcher waits for it.
    const STEP_HOLD: Duration = Duration::from_millis(200);

    /// errno(3), "input/output error".
    const EIO: i32 = 5;

    const REFUSED: SysError = SysError { call: "failpoint", errno: EIO };

    static POINTS: OnceLock<PathBuf> = OnceLock::new();

    /// The armed step of the next jail: hash of its name, how many of that name are let pass, and
    /// what happens. In atomics, because they are looked at after fork.
    static STEP: AtomicU64 = AtomicU64::new(0);
    static STEPS_LEFT: AtomicU32 = AtomicU32::new(0);
    static STEP_ACTION: AtomicU8 = AtomicU8::new(0);

    const NONE: u8 = 0;
    const KILL: u8 = 1;
    const ERROR: u8 = 2;
    const HOLD: u8 = 3;

    fn action(word: &str) -> u8 {
        match word {
            "kill" => KILL,
            "error" => ERROR,
            "hold" => HOLD,
            _ => NONE,
        }
    }

    /// From now on the points of this process are those armed below this state directory. Only the
    /// first call counts.
    pub fn watch(state_dir: &Path) {
        POINTS.get_or_init(|| state_dir.join(DIRECTORY));
    }

    /// The point `name`. A file of that name has the process `kill`ed, the call end in `error`, or
    /// `hold` until the test removes `NAME.held`; it acts once.
    ///
    /// # Errors
    /// `EIO`, when a test asked for it.
    pub fn hit(name: Arguments<'_>) -> Result<(), SysError> {
        let Some(points) = POINTS.get().filter(|points| points.exists()) else { return Ok(()) };
        let name = name.to_string();
        if let Ok(mut trace) = fs::OpenOptions::new().append(true).open(points.join("trace")) {
            // One write, so that lines of several processes do not mix.
            trace.write_all(format!("{name}\n").as_bytes()).unwrap_or_default();
        }
        let point = points.join(&name);
        let Ok(word) = fs::read_to_string(&point) else { return Ok(()) };
        if action(&word) == HOLD {
            return hold(&point);
        }
        // Of several that come here at once, one takes it.
        if fs::remove_file(&point).is_err() {
            return Ok(());
        }
        match action(&word) {
            KILL => end(),
            ERROR => Err(REFUSED),
            _ => Ok(()),
        }
    }

    fn hold(point: &Path) -> Result<(), SysError> {
        let held = point.with_added_extension("held");
        if fs::rename(point, &held).is_err() {
            return Ok(());
        }
        let begun = Instant::now();
        while held.exists() && begun.elapsed() < LONGEST_HOLD {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends this process as `kill -9` does.
    fn end() -> ! {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        if let Ok(pidfd) = sys::pidfd::open(own) {
            sys::signal::send(pidfd.as_fd(), sys::signal::SIGKILL).unwrap_or_default();
        }
        // A jail may not signal any more when it has its filter.
        sys::process::exit(137)
    }

    /// Looks which step of the next jail is armed, as `enter.NAME`, before its first process is forked: behind that
    /// nobody can look. The word may be followed by how many steps of the name are let pass.
    pub fn arm_steps() {
        STEP_ACTION.store(NONE, Relaxed);
        let Some(entries) = POINTS.get().and_then(|points| fs::read_dir(points).ok()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(step) = name.to_str().and_then(|name| name.strip_prefix(STEP_PREFIX)) else {
                continue;
            };
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            if fs::remove_file(entry.path()).is_err() {
                continue;
            }
            let (word, passes) = text.split_once(' ').unwrap_or((&text, "0"));
            STEP.store(hash(step), Relaxed);
            STEPS_LEFT.store(passes.parse().unwrap_or(0), Relaxed);
            STEP_ACTION.store(action(word), Relaxed);
        }
    }

    /// The point behind step `name` of a jail. *After fork.*
    ///
    /// # Errors
    /// `EIO`, when a test asked for it.
    pub fn step(name: &str) -> Result<(), SysError> {
        let armed = STEP_ACTION.load(Relaxed);
        if armed == NONE || STEP.load(Relaxed) != hash(name) {
            return Ok(());
        }
        if STEPS_LEFT.load(Relaxed) > 0 {
            STEPS_LEFT.fetch_sub(1, Relaxed);
            return Ok(());
        }
        STEP_ACTION.store(NONE, Relaxed);
        match armed {
            KILL => end(),
            ERROR => Err(REFUSED),
            _ => {
                std::thread::sleep(STEP_HOLD);
                Ok(())
            }
        }
    }

    /// FNV-1a: a name as a number, without allocating.
    fn hash(name: &str) -> u64 {
        name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    /// One test, because the directory is the process's.
    #[test]
    fn what_is_armed_acts_once_and_nothing_else_does() {
        let state = tempfile::tempdir().unwrap();
        let points = state.path().join("failpoints");
        crate::watch(state.path());
        assert!(failpoint!("a").is_ok());
        fs::create_dir(&points).unwrap();
        fs::write(points.join("trace"), "").unwrap();

        fs::write(points.join("a.7"), "error").unwrap();
        assert!(failpoint!("b").is_ok());
        assert_eq!(failpoint!("a.{}", 7).unwrap_err().call, "failpoint");
        assert!(failpoint!("a.{}", 7).is_ok());
        assert_eq!(fs::read_to_string(points.join("trace")).unwrap(), "b\na.7\na.7\n");

        fs::write(points.join("c"), "hold").unwrap();
        let held = std::thread::spawn(|| failpoint!("c"));
        while !points.join("c.held").exists() {
            std::thread::yield_now();
        }
        assert!(!held.is_finished());
        fs::remove_file(points.join("c.held")).unwrap();
        assert!(held.join().unwrap().is_ok());

        fs::write(points.join("enter.fork"), "error 1").unwrap();
        crate::arm_steps();
        assert!(crate::step("other").is_ok() && crate::step("fork").is_ok());
        assert!(crate::step("fork").is_err() && crate::step("fork").is_ok());
    }
}
