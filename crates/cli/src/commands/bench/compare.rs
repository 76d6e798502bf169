//! The same job by other programs: a fresh sandbox from the same root file system, `/bin/true` in
//! it, everything gone again. Each is started as its users start it, one process per run, so its
//! start counts, as the HTTP round trips count for the server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use api::id::ImageRef;
use serde_json::{Value, json};

use super::{measure::Bench, report::Comparison, rootfs::MountedRootfs, samples::Samples};
use crate::random::random_name;

/// Runs before the first that counts.
const WARM_UP: usize = 2;

/// Runs whatever is installed.
pub(super) async fn run(
    bench: &Bench,
    image: &ImageRef,
    rootfs: Option<&Path>,
) -> anyhow::Result<Comparison> {
    let mounted = match rootfs {
        Some(_given) => None,
        None => Some(MountedRootfs::mount(&client::state_dir(), image).context(
            "could not mount the image for the comparison (which needs root on the server's \
             machine); --rootfs gives a directory instead",
        )?),
    };
    let root = match (&mounted, rootfs) {
        (Some(mounted), _) => mounted.path(),
        (None, given) => fs::canonicalize(given.unwrap_or(Path::new("/")))
            .context("could not resolve the directory of --rootfs")?,
    };
    let scratch = Scratch::new()?;
    let (mut measures, mut absent) = (Vec::new(), Vec::new());
    for program in Program::ALL {
        if !is_installed(program.name()) {
            absent.push(program.name().to_owned());
            continue;
        }
        measures.push(measure(bench, program, &root, &scratch).await);
    }
    Ok(Comparison { measures, absent })
}

async fn measure(bench: &Bench, program: Program, root: &Path, scratch: &Scratch) -> Samples {
    let mut samples = Samples::new(program.name());
    if let Err(error) = program.prepare(root, scratch) {
        samples.record(Instant::now(), Err::<(), _>(format!("{error:#}")));
        return samples;
    }
    let bar = bench.progress(program.name(), bench.runs);
    for index in 0..WARM_UP + bench.runs {
        let mut command = program.command(root, scratch, index);
        let begin = Instant::now();
        let result = attempt(&mut command);
        if index >= WARM_UP {
            samples.record(begin, result.map_err(|error| format!("{error:#}")));
            bar.inc(1);
        }
        // The processes are waited for without the runtime, for the sake of their timing; here a
        // signal is seen.
        tokio::task::yield_now().await;
    }
    bar.finish_and_clear();
    samples
}

fn attempt(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {}", command.get_program().display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, text.lines().last().unwrap_or_default());
    }
    Ok(())
}

/// A program that can run a command in a root file system.
#[derive(Debug, Clone, Copy)]
enum Program {
    Bwrap,
    Crun,
    Runc,
    Podman,
    /// gVisor: a kernel of its own in a process.
    Runsc,
}

impl Program {
    const ALL: [Self; 5] = [Self::Bwrap, Self::Crun, Self::Runc, Self::Podman, Self::Runsc];

    fn name(self) -> &'static str {
        match self {
            Self::Bwrap => "bwrap",
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Podman => "podman",
            Self::Runsc => "runsc",
        }
    }

    /// Makes what every run shares: for OCI runtimes a bundle, of their own default
    /// configuration.
    fn prepare(self, root: &Path, scratch: &Scratch) -> anyhow::Result<()> {
        match self {
            Self::Bwrap | Self::Podman => Ok(()),
            Self::Crun | Self::Runc | Self::Runsc => {
                let bundle = self.bundle(scratch);
                fs::create_dir(&bundle)?;
                attempt(Command::new(self.name()).arg("spec").current_dir(&bundle))?;
                let path = bundle.join("config.json");
                let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
                config["root"] = json!({"path": root, "readonly": true});
                config["process"]["terminal"] = json!(false);
                config["process"]["args"] = json!(["/bin/true"]);
                // `true` has no use for it, and on some hosts it cannot be mounted.
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    mounts.retain(|mount| mount["type"] != "cgroup");
                }
                Ok(fs::write(path, serde_json::to_vec(&config)?)?)
            }
        }
    }

    fn command(self, root: &Path, scratch: &Scratch, index: usize) -> Command {
        let mut command = Command::new(self.name());
        match self {
            Self::Bwrap => command
                .args(["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind"])
                .arg(root)
                .args(["/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]),
            Self::Crun | Self::Runc => command
                .arg("--root")
                .arg(scratch.dir.join(format!("{}-state", self.name())))
                .args(["run", "--bundle"])
                .arg(self.bundle(scratch))
                .arg(format!("{}-{index}", scratch.name())),
            // Without a network, which bwrap has not either.
            Self::Runsc => command
                .arg("--root")
                .arg(scratch.dir.join("runsc-state"))
                .args(["--network", "none", "run", "--bundle"])
                .arg(self.bundle(scratch))
                .arg(format!("{}-{index}", scratch.name())),
            Self::Podman => {
                command.args(["run", "--rm", "--read-only", "--rootfs"]).arg(root).arg("/bin/true")
            }
        };
        command
    }

    fn bundle(self, scratch: &Scratch) -> PathBuf {
        scratch.dir.join(self.name())
    }
}

/// A directory for bundles and states, removed with what is in it.
#[derive(Debug)]
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let dir = env::temp_dir().join(format!("sandbar-compare-{}", random_name()?));
        fs::create_dir(&dir).with_context(|| format!("could not make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Different in each run of the benchmark: containers are named after it.
    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.dir.file_name().unwrap_or_default().to_string_lossy()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A few files in /tmp; nothing to tell anybody about.
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
