//! What a server has outside its state directory: after its end, nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How long the kernel may take to collect network namespaces after their last process.
const COLLECTION: Duration = Duration::from_secs(60);

/// Kernel objects that carry a server's name or state directory. Two that are equal tell that what
/// happened between left nothing behind and took nothing away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaks {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
    rules: BTreeSet<String>,
    launchers: usize,
    loop_devices: BTreeSet<String>,
    network_namespaces: BTreeSet<String>,
    /// As the server sees them: the mount of what is below `volumes` is its own.
    volumes: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// How many there are of what sandboxes have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Jails with cgroups.
    pub jails: usize,
    /// Those of them that are frozen.
    pub frozen: usize,
    /// Links to the host.
    pub links: usize,
    /// Sockets of agents.
    pub sockets: usize,
    /// Volumes.
    pub volumes: usize,
}

impl Leaks {
    /// Looks at the machine now.
    #[must_use]
    pub fn look(name: &str, state_dir: &Path) -> Self {
        let state = state_dir.to_string_lossy().into_owned();
        Self {
            mounts: lines_with("/proc/self/mounts", &state),
            cgroups: cgroups(&format!("sandbar-{name}")),
            links: names_in("/sys/class/net", |link| link.starts_with(&format!("{name}-"))),
            tables: tables(&format!("sandbar_{name}")),
            rules: rules(name),
            launchers: launchers(&state).len(),
            volumes: volumes(state_dir, &launchers(&state)),
            loop_devices: loop_devices(&state),
            // Those named so are other tests' own.
            network_namespaces: names_in("/run/netns", |name| !name.starts_with("test-")),
            files: ["sandboxes", "run"]
                .iter()
                .flat_map(|part| {
                    names_in(state_dir.join(part), |_| true)
                        .into_iter()
                        .map(move |file| format!("{part}/{file}"))
                })
                .collect(),
        }
    }

    /// The same, whatever the number of launchers: one that was killed is replaced when it is needed.
    #[must_use]
    pub fn but_for_launchers(self) -> Self {
        Self { launchers: 0, ..self }
    }

    /// How many volumes there are: one for each sandbox, and one for each checkpoint.
    #[must_use]
    pub fn volume_count(&self) -> usize {
        self.volumes.len()
    }

    /// What there is of each kind.
    #[must_use]
    pub fn found(&self) -> Found {
        let number = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let jails: BTreeSet<String> = self.cgroups.iter().map(|path| number(path)).collect();
        let is_frozen = |path: &&String| {
            let events = fs::read_to_string(format!("{path}/cgroup.events")).unwrap_or_default();
            let state = fs::read_to_string(format!("{path}/freezer.state")).unwrap_or_default();
            events.contains("frozen 1") || state.trim() == "FROZEN"
        };
        Found {
            jails: jails.len(),
            frozen: self.cgroups.iter().filter(is_frozen).count(),
            links: self.links.len(),
            sockets: self.files.iter().filter(|file| file.starts_with("run/")).count(),
            volumes: self.volumes.len(),
        }
    }

    /// Waits until the machine looks like `self` again: links vanish, and files are removed, behind
    /// the reply.
    ///
    /// # Panics
    /// When it does not within a minute; the message tells the difference.
    pub fn expect_again(&self, name: &str, state_dir: &Path) {
        let deadline = Instant::now() + COLLECTION;
        loop {
            let now = Self::look(name, state_dir);
            if now == *self {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {now:#?}, instead of {self:#?}");
            // There is no event for "the kernel has collected a namespace".
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn lines_with(path: &str, text: &str) -> BTreeSet<String> {
    let content = fs::read_to_string(path).unwrap_or_default();
    content.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

fn names_in(dir: impl AsRef<Path>, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| wanted(name)).collect()
}

/// Groups below the node's directory, in every tree.
fn cgroups(node_dir: &str) -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let trees = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        fields.next()?.starts_with("cgroup").then(|| path.to_owned())
    });
    trees
        .flat_map(|tree| {
            let node = Path::new(&tree).join(node_dir);
            let jails = names_in(&node, |name| name.parse::<u64>().is_ok());
            jails.into_iter().map(move |jail| format!("{}/{jail}", node.display()))
        })
        .collect()
}

fn tables(name: &str) -> BTreeSet<String> {
    let output = Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.ends_with(name)).map(str::to_owned).collect()
}

/// Links that the firewall's table knows, and what it has for one of them alone.
fn rules(name: &str) -> BTreeSet<String> {
    let table = format!("sandbar_{name}");
    let output = Command::new("nft").args(["list", "table", "inet", &table]).output();
    let text = String::from_utf8_lossy(&output.expect("nft runs").stdout).into_owned();
    let is_one_link = |word: &&str| word.starts_with(&format!("{name}-")) && !word.ends_with('*');
    let links = text.split('"').filter(is_one_link);
    let is_of_list =
        |word: &&str| ["list_", "any_", "port_"].iter().any(|kind| word.starts_with(kind));
    links.chain(text.split_whitespace().filter(is_of_list)).map(str::to_owned).collect()
}

/// Process ids of the launchers of this state directory.
fn launchers(state: &str) -> Vec<String> {
    let pids = names_in("/proc", |name| name.parse::<u32>().is_ok());
    let is_one = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("__launcher") && line.contains(state)
    };
    pids.into_iter().filter(is_one).collect()
}

/// The volumes there are, in the mount namespace of the launchers; none without a launcher.
fn volumes(state_dir: &Path, launchers: &[String]) -> BTreeSet<String> {
    let Some(launcher) = launchers.first() else { return BTreeSet::new() };
    let inside = state_dir.join("volumes");
    let inside = inside.strip_prefix("/").unwrap_or(&inside);
    names_in(Path::new(&format!("/proc/{launcher}/root")).join(inside), |_| true)
}

fn loop_devices(state: &str) -> BTreeSet<String> {
    names_in("/sys/block", |device| {
        let backing = format!("/sys/block/{device}/loop/backing_file");
        fs::read_to_string(backing).is_ok_and(|file| file.contains(state))
    })
}
