//! Where the host keeps which controller.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::set;
use crate::error::JailError;

/// A controller that jails use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    /// Bytes.
    Memory,
    /// Processes and threads.
    Pids,
    /// CPU time.
    Cpu,
    /// CPU time used; v1 only, and needed only where no v2 tree tells it.
    CpuAccounting,
    /// Stopping everything in a group; v1 only, and needed only where no v2 tree does it.
    Freezer,
}

impl Controller {
    const ALL: [Self; 5] =
        [Self::Memory, Self::Pids, Self::Cpu, Self::CpuAccounting, Self::Freezer];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One mounted tree and the controllers it has that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(super) path: PathBuf,
    pub(super) v2: bool,
    controllers: BTreeSet<Controller>,
}

/// The host's trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Trees with a controller we use, v1 and v2.
    used: Vec<Tree>,
    /// The v2 tree, if one is mounted, with or without controllers.
    pub(super) unified: Option<PathBuf>,
}

/// The directory of a node in every tree.
pub(crate) fn node_dir(node_name: &str) -> String {
    format!("sandbar-{node_name}")
}

impl Layout {
    /// Reads the host's mounts.
    pub(crate) fn detect() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::from_mounts(&mounts, |tree| {
            fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default()
        }))
    }

    /// The host as if it had no v2 tree.
    #[cfg(test)]
    pub(super) fn detect_v1() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let v1: Vec<_> = mounts.lines().filter(|line| !line.contains(" - cgroup2 ")).collect();
        Ok(Self::from_mounts(&v1.join("\n"), |_| String::new()))
    }

    /// `mountinfo` is `proc_pid_mountinfo(5)`; `controllers` reads a v2 tree's `cgroup.controllers`.
    fn from_mounts(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ');
            let (Some(root), Some(path)) = (left.nth(3), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            // A mount of a part of the tree is somebody else's view of it.
            if root != "/" {
                continue;
            }
            let path = PathBuf::from(path);
            match kind {
                Some("cgroup2") if layout.unified.is_none() => {
                    let text = controllers(&path);
                    layout.add(path.clone(), true, &|name| {
                        text.split_whitespace().any(|c| c == name)
                    });
                    layout.unified = Some(path);
                }
                Some("cgroup") => {
                    layout.add(path, false, &|name| options.split(',').any(|c| c == name));
                }
                _ => {}
            }
        }
        if layout.unified.is_some() {
            layout.forget_what_v2_does();
        }
        layout
    }

    fn add(&mut self, path: PathBuf, v2: bool, has: &dyn Fn(&str) -> bool) {
        let controllers: BTreeSet<_> = Controller::ALL
            .into_iter()
            .filter(|controller| has(controller.name()) && self.tree(*controller).is_none())
            .collect();
        if !controllers.is_empty() {
            self.used.push(Tree { path, v2, controllers });
        }
    }

    fn forget_what_v2_does(&mut self) {
        for tree in &mut self.used {
            tree.controllers.remove(&Controller::CpuAccounting);
            tree.controllers.remove(&Controller::Freezer);
        }
        self.used.retain(|tree| !tree.controllers.is_empty());
    }

    /// The tree that has `controller`.
    pub(super) fn tree(&self, controller: Controller) -> Option<&Tree> {
        self.used.iter().find(|tree| tree.controllers.contains(&controller))
    }

    /// Trees with a controller we use.
    pub(super) fn used(&self) -> impl Iterator<Item = &Tree> {
        self.used.iter()
    }

    /// Every tree a jail has directories in: the v2 tree first, because killing works through it.
    pub(super) fn trees(&self) -> impl Iterator<Item = &PathBuf> {
        let v1 = self.used.iter().filter(|tree| !tree.v2).map(|tree| &tree.path);
        self.unified.iter().chain(v1)
    }

    /// The groups that a jail has below its own in the tree mounted at `path`.
    pub(super) fn groups(&self, path: &Path) -> &'static [&'static str] {
        match self.used.iter().find(|tree| tree.path == path) {
            Some(tree) if !tree.has_groups() => &[],
            Some(tree) if !tree.v2 => &["user"],
            // A v2 group with controllers for its children holds no process.
            _ => &["agent", "user"],
        }
    }

    /// v2: makes the controllers available to the node's jails.
    pub(super) fn delegate_controllers(&self, node_name: &str) -> Result<(), JailError> {
        let Some(unified) = &self.unified else { return Ok(()) };
        self.enable_for_children(unified)?;
        self.enable_for_children(&unified.join(node_dir(node_name)))
    }

    /// v2: makes the controllers we use available in the children of `dir`.
    pub(super) fn enable_for_children(&self, dir: &Path) -> Result<(), JailError> {
        for tree in self.used.iter().filter(|tree| tree.v2) {
            for controller in &tree.controllers {
                set(&dir.join("cgroup.subtree_control"), &format!("+{controller}"))?;
            }
        }
        Ok(())
    }
}

impl Tree {
    /// True when agent and user have different limits here; CPU time is limited for both together.
    pub(super) fn has_groups(&self) -> bool {
        let apart = [Controller::Memory, Controller::Pids];
        self.v2 || apart.iter().any(|controller| self.controllers.contains(controller))
    }

    /// Sets the limits of one group, as far as this tree has their controllers.
    pub(super) fn set_limits(&self, dir: &Path, memory: u64, pids: u32) -> Result<(), JailError> {
        if self.controllers.contains(&Controller::Memory) {
            self.set_memory(dir, memory)?;
        }
        if self.controllers.contains(&Controller::Pids) {
            set(&dir.join("pids.max"), &pids.to_string())?;
        }
        Ok(())
    }

    /// Memory without swap beyond it. Files about swap are absent where the kernel does not count it.
    fn set_memory(&self, dir: &Path, memory: u64) -> Result<(), JailError> {
        let (limit, swap, swap_limit) = if self.v2 {
            ("memory.max", "memory.swap.max", "0".to_owned())
        } else {
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", memory.to_string())
        };
        let swap = dir.join(swap);
        // v1 refuses a total below the memory limit and a memory limit above the total: when the
        // group is new, the total is unlimited and the memory limit goes first.
        set(&dir.join(limit), &memory.to_string())?;
        if swap.exists() {
            set(&swap, &swap_limit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 25 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn layout(mounts: &str, controllers: &str) -> Layout {
        Layout::from_mounts(mounts, |_| controllers.to_owned())
    }

    fn place(layout: &Layout, controller: Controller) -> Option<(&str, bool)> {
        layout.tree(controller).map(|tree| (tree.path.to_str().unwrap(), tree.v2))
    }

    #[test]
    fn a_pure_v2_host_has_everything_in_one_tree() {
        let layout = layout(V2, "cpuset cpu io memory pids");
        for controller in [Controller::Memory, Controller::Pids, Controller::Cpu] {
            assert_eq!(place(&layout, controller), Some(("/sys/fs/cgroup", true)));
        }
        assert_eq!(layout.trees().count(), 1);
    }

    #[test]
    fn a_v1_host_has_a_tree_per_controller_and_accounts_for_the_cpu() {
        let layout = layout(V1, "");
        assert_eq!(place(&layout, Controller::Pids), Some(("/sys/fs/cgroup/pids", false)));
        assert_eq!(
            place(&layout, Controller::CpuAccounting),
            Some(("/sys/fs/cgroup/cpu,cpuacct", false))
        );
        assert_eq!(place(&layout, Controller::Freezer), Some(("/sys/fs/cgroup/freezer", false)));
        assert_eq!(layout.unified, None);
        assert_eq!(layout.trees().count(), 4);
    }

    #[test]
    fn a_hybrid_host_limits_in_v1_and_kills_in_v2() {
        let unified = "34 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let layout = layout(&format!("{V1}{unified}"), "hugetlb");
        assert_eq!(place(&layout, Controller::Memory), Some(("/sys/fs/cgroup/memory", false)));
        assert_eq!(layout.unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(layout.tree(Controller::CpuAccounting), None);
        assert_eq!(layout.tree(Controller::Freezer), None);
        assert_eq!(layout.trees().next(), layout.unified.as_ref());
    }

    #[test]
    fn parts_of_trees_are_not_trees() {
        let partial = "31 25 0:27 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(layout(partial, ""), Layout::default());
    }
}
