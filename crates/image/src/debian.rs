//! The base layers `FROM debian:...`: a minimal system of Debian's own packages.
//!
//! Made by mmdebstrap from the release and its security and stable updates, checked against
//! Debian's archive keys, then adapted to be the ground of sandboxes: no documentation, manuals or
//! translations (now or by later installs), no service started by an install, nothing installed
//! that is only recommended.
//!
//! mmdebstrap runs as root on the host, in mount and pid namespaces of its own: what it mounts
//! inside the new root is never seen by the host, so removing a half-made root cannot reach
//! through a mount, and when it is cancelled or the daemon dies every process of it dies too.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::Path,
    process::Command,
};

use api::id::ImageRef;

use crate::{
    disk,
    error::{Attempt, ImageError},
    follow::{self, Cancel, SYSTEM_PATH},
    key::LayerKey,
    rootfs::{HOST_CA, WORKSPACE},
};

/// Where Debian's packages come from: a name for whichever mirror is near.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Where its security updates come from.
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";

/// Keys that sign Debian's archive. On Debian always there; on Ubuntu a package.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lines of output kept to explain a failure.
const TAIL_LINES: usize = 12;

/// Counts changes to what this module makes, so that older layers are not taken for newer ones.
const REVISION: &str = "1";

/// What dpkg leaves out of every package. Copyright files stay, as their licences ask.
const DPKG_OPTIONS: [&str; 8] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    // No sync for each file: a layer is synced whole, and a sandbox is not installed to survive
    // a power cut in the middle of an install.
    "force-unsafe-io",
];

/// How apt behaves in sandboxes.
const APT_OPTIONS: &str = r#"// Written by sandbar.
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
Acquire::Retries "3";
// apt's own user guards a host against a hostile download; here the sandbox does.
APT::Sandbox::User "root";
"#;

/// Refuses every start of a service by a package's install script: a sandbox has no init system.
const POLICY_RC: &str = "#!/bin/sh\nexit 101\n";

/// A release of Debian that can be built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Release {
    codename: &'static str,
    number: &'static str,
}

/// Every release that can be built on.
const RELEASES: [Release; 2] =
    [Release { codename: "bookworm", number: "12" }, Release { codename: "trixie", number: "13" }];

impl Release {
    /// The release that `base` names: `debian:bookworm`, `debian:12`, either with `-slim`, which
    /// changes nothing as every base here is slim. `None` when `base` is not Debian at all.
    ///
    /// # Errors
    /// Which tags there are, as a sentence.
    pub(crate) fn named(base: &ImageRef) -> Option<Result<Self, String>> {
        if base.name() != "debian" {
            return None;
        }
        let tag = base.tag().strip_suffix("-slim").unwrap_or(base.tag());
        let known = RELEASES.into_iter().find(|r| r.codename == tag || r.number == tag);
        Some(known.ok_or_else(|| {
            let names = RELEASES.map(|release| format!("debian:{}", release.codename));
            format!("say which release: {}", names.join(" or "))
        }))
    }

    /// The release with this codename.
    pub(crate) fn of_codename(codename: &str) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.codename == codename)
    }

    /// What Debian calls it.
    pub(crate) fn codename(self) -> &'static str {
        self.codename
    }

    /// The key of its base layer on this machine's architecture.
    pub(crate) fn key(self) -> LayerKey {
        let options = DPKG_OPTIONS.join("\n");
        let arch = std::env::consts::ARCH;
        LayerKey::base(&format!(
            "debian {} {arch} {REVISION}\n{MIRROR}\n{options}\n{APT_OPTIONS}",
            self.codename
        ))
    }
}

/// Makes the base layer of `release` in the empty directory `root`. `proxies` are environment
/// variables for the download. Lines of progress go to `line`.
///
/// # Errors
/// [`ImageError::ToolMissing`], [`ImageError::MirrorUnreachable`], [`ImageError::DiskFull`],
/// [`ImageError::BootstrapFailed`], [`ImageError::Cancelled`], [`ImageError::Io`].
pub(crate) fn bootstrap(
    release: Release,
    root: &Path,
    proxies: &BTreeMap<String, String>,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
) -> Result<(), ImageError> {
    check_tools()?;
    let mut tail = VecDeque::new();
    let status = follow::follow(command(release, root, proxies), cancel, &mut |text| {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.to_owned());
        line(text);
    })
    .attempt(|| "running mmdebstrap".to_owned())?
    .ok_or(ImageError::Cancelled)?;
    if !status.success() {
        let tail = Vec::from(tail).join("\n");
        return Err(match cause(&tail) {
            Cause::Network => ImageError::MirrorUnreachable { mirror: MIRROR, tail },
            Cause::Disk => ImageError::DiskFull { path: root.to_owned(), tail },
            Cause::Other => ImageError::BootstrapFailed { status, tail },
        });
    }
    adapt(root)
}

/// Whether the machine has what makes a base layer.
///
/// # Errors
/// [`ImageError::ToolMissing`].
pub(crate) fn check_tools() -> Result<(), ImageError> {
    let tools =
        [("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("setpriv", "util-linux")];
    for (tool, package) in tools {
        if !SYSTEM_PATH.split(':').any(|dir| Path::new(dir).join(tool).is_file()) {
            return Err(ImageError::ToolMissing { tool, package });
        }
    }
    if Path::new(KEYRING).is_file() {
        Ok(())
    } else {
        Err(ImageError::ToolMissing { tool: KEYRING, package: "debian-archive-keyring" })
    }
}

fn command(release: Release, root: &Path, proxies: &BTreeMap<String, String>) -> Command {
    // Outermost first: die with the thread that waits here; then namespaces whose end is the end
    // of everything in them.
    let mut command = follow::system_command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--mount-proc"]);
    command.args(["--fork", "--kill-child=KILL", "--", "mmdebstrap"]);
    command.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    command.arg(format!("--keyring={KEYRING}"));
    command.args(DPKG_OPTIONS.map(|option| format!("--dpkgopt={option}")));
    command.args(["--aptopt=Acquire::Retries \"3\"", "--aptopt=Acquire::http::Timeout \"30\""]);
    command.args(["--aptopt=Acquire::Languages \"none\""]);
    let suite = release.codename;
    command.arg(suite).arg(root);
    command.arg(format!("deb {MIRROR} {suite} main"));
    command.arg(format!("deb {MIRROR} {suite}-updates main"));
    command.arg(format!("deb {SECURITY_MIRROR} {suite}-security main"));
    command.envs(proxies);
    command.env("HOME", "/root").env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Turns what mmdebstrap made into the ground of sandboxes.
fn adapt(root: &Path) -> Result<(), ImageError> {
    let dev = root.join("dev");
    // Sandboxes get a /dev of their own; device nodes have no business in a layer.
    disk::remove_tree(&dev)?;
    disk::make_directory(&dev, 0o755)?;
    disk::make_directory(&root.join(WORKSPACE.trim_start_matches('/')), 0o755)?;
    for left_over in ["etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"] {
        disk::remove_tree_or_file(&root.join(left_over))?;
    }
    let dpkg = format!("# Written by sandbar.\n{}\n", DPKG_OPTIONS.join("\n"));
    disk::put(&root.join("etc/dpkg/dpkg.cfg.d/sandbar"), dpkg.as_bytes(), 0o644)?;
    disk::put(&root.join("etc/apt/apt.conf.d/90sandbar"), APT_OPTIONS.as_bytes(), 0o644)?;
    disk::put(&root.join("usr/sbin/policy-rc.d"), POLICY_RC.as_bytes(), 0o755)?;
    disk::put(&root.join(HOST_CA), b"", 0o644)?;
    // mmdebstrap copied the host's; a sandbox is told its own when it starts.
    disk::put(&root.join("etc/resolv.conf"), b"", 0o644)?;
    disk::put(&root.join("etc/hostname"), b"sandbox\n", 0o644)?;
    disk::put(&root.join("etc/hosts"), crate::host::HOSTS.as_bytes(), 0o644)?;
    disk::put(&root.join("etc/machine-id"), b"", 0o444)?;
    for logs in
        ["var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log"]
    {
        let path = root.join(logs);
        if fs::symlink_metadata(&path).is_ok() {
            disk::remove_tree_or_file(&path)?;
        }
    }
    disk::make_directory(&root.join("var/log/apt"), 0o755)
}

enum Cause {
    Network,
    Disk,
    Other,
}

/// Guesses the cause of a failure from apt's words, to give the better advice of two; the words
/// themselves are shown either way.
fn cause(tail: &str) -> Cause {
    const NETWORK: [&str; 9] = [
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Cannot initiate the connection",
        "Connection failed",
        "Connection timed out",
        "Network is unreachable",
        "Failed to fetch",
    ];
    if tail.contains("No space left on device") {
        Cause::Disk
    } else if NETWORK.iter().any(|words| tail.contains(words)) {
        Cause::Network
    } else {
        Cause::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_known_by_codename_and_number() {
        let named = |text: &str| Release::named(&text.parse().unwrap());
        for text in ["debian:bookworm", "debian:12", "debian:12-slim", "debian:bookworm-slim"] {
            assert_eq!(named(text).unwrap().unwrap(), RELEASES[0], "{text}");
        }
        for text in ["debian", "debian:sid", "debian:9"] {
            assert!(named(text).unwrap().unwrap_err().contains("debian:bookworm"), "{text}");
        }
        assert!(named("ubuntu:24.04").is_none());
        assert_ne!(RELEASES[0].key(), RELEASES[1].key());
    }

    #[test]
    fn the_advice_fits_the_words_of_the_failure() {
        assert!(matches!(
            cause("Err:1 http://x\n  Temporary failure resolving 'deb.debian.org'"),
            Cause::Network
        ));
        assert!(matches!(
            cause("E: Failed to fetch x\nE: write: No space left on device"),
            Cause::Disk
        ));
        assert!(matches!(cause("E: Unable to locate package x"), Cause::Other));
    }

    #[test]
    fn an_unreachable_mirror_is_said_in_words_with_the_last_lines() {
        let root = tempfile::TempDir::new().unwrap();
        // Port 9 of this machine is closed: no packet leaves.
        let proxies = BTreeMap::from([("http_proxy".to_owned(), "http://127.0.0.1:9".to_owned())]);
        let mut lines = 0;

        let result = bootstrap(
            RELEASES[0],
            &root.path().join("root"),
            &proxies,
            &Cancel::default(),
            &mut |_| lines += 1,
        );

        match result {
            Err(error @ ImageError::MirrorUnreachable { .. }) => {
                assert!(error.to_string().contains("127.0.0.1"), "{error}");
                assert!(lines > 0);
            }
            // Where the tool is missing that is what a user must be told.
            Err(ImageError::ToolMissing { tool, .. }) => assert!(!Path::new(tool).exists()),
            other => panic!("{other:?}"),
        }
    }
}
