//! What a server that has given up being root gives up besides.
//!
//! It keeps no capability, starts no program, makes none of the system calls that sandboxes may not make
//! either, and changes files below one directory only. What needs more is asked of the keeper and its
//! launchers. It is for ever, and holds for each thread that a confined one starts: done while a process
//! has one thread, it holds for the process.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use sys::{
    SysError,
    credentials::{self, Capabilities},
    errno::{ENOSYS, EOPNOTSUPP},
    landlock,
    seccomp::{self, Instruction, NO_PROGRAMS},
};

use crate::policy;

/// What a server is confined with.
#[derive(Debug)]
pub struct Confinement {
    filter: Vec<Instruction>,
    /// None: this kernel has no landlock, as `sandbar doctor` says.
    places: Option<OwnedFd>,
}

impl Confinement {
    /// For a process that may go on to change files below `place`.
    ///
    /// # Errors
    /// When `place` cannot be opened, or the kernel refuses.
    pub fn prepare(place: &Path) -> io::Result<Self> {
        let places = match landlock::version() {
            Err(SysError { errno: ENOSYS | EOPNOTSUPP, .. }) => None,
            version => {
                let version = version?;
                let places = landlock::nothing_changes(version)?;
                landlock::except_below(places.as_fd(), version, File::open(place)?.as_fd())?;
                Some(places)
            }
        };
        Ok(Self { filter: policy::agent_filter(), places })
    }

    /// Confines the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses; what it did not refuse is in force.
    pub fn confine(&self) -> io::Result<()> {
        credentials::set_no_new_privileges()?;
        if let Some(places) = &self.places {
            landlock::restrict(places.as_fd())?;
        }
        credentials::set_capabilities(Capabilities::default())?;
        seccomp::load(&self.filter)?;
        Ok(seccomp::load(&NO_PROGRAMS)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, thread};

    use super::*;

    #[test]
    fn a_confined_thread_has_nothing_to_gain() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_owned();
        let confinement = Confinement::prepare(&path).unwrap();
        thread::spawn(move || {
            let begin = std::time::Instant::now();
            confinement.confine().unwrap();
            println!("confined in {:?}", begin.elapsed());

            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            for line in [
                "CapEff:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
            ] {
                assert!(status.contains(line), "{line} in {status}");
            }
            Command::new("/bin/true").status().unwrap_err();
            sys::namespace::unshare(sys::namespace::Namespaces::MOUNT).unwrap_err();
            fs::write(path.join("own"), "x").unwrap();
            // It is inherited by threads that come later, as those of a runtime's pool.
            thread::spawn(|| Command::new("/bin/true").status().unwrap_err()).join().unwrap();
        })
        .join()
        .unwrap();
        Command::new("/bin/true").status().unwrap();
    }
}
