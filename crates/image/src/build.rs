//! Builds an image: each instruction of a recipe in turn, on the layers of those before it.
//!
//! ```text
//! FROM      base layer, made unless it is there      key = its inputs
//! RUN       handed to the caller; its upper ─► layer  key = key before + instruction
//! ENV, LABEL  settings, no layer                      key = key before + instruction
//! WORKDIR   settings; a layer only when the directory has to be made
//! ```
//!
//! Behind the last instruction a layer is added that lets interpreters start from a copy of a started
//! one, where the image has one that can. It is the image's alone: whoever builds on the image builds
//! on what is below it.
//!
//! A step whose layer is in the store is not carried out again, so a build that failed goes on
//! from the step that failed, and a changed recipe from its first change.
//!
//! Does not know how a command is run, or an interpreter kept: see [`RunStep`].

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use api::{
    id::ImageRef,
    image::{BuildEvent, Image},
};

use crate::{
    debian::{self, Release},
    error::ImageError,
    follow::Cancel,
    key::LayerKey,
    recipe::{Instruction, Recipe, RecipeError, Step},
    rootfs::{Bind, HOST_CA, Rootfs},
    settings::Settings,
    store::{self, Changes, HOST, Manifest, Store},
};

/// Layers of one image. overlayfs takes 500; far fewer keep a lookup that misses, which asks every
/// layer, cheap. Docker's own limit is 127.
pub(crate) const LAYERS: usize = 127;

/// Variables by which programs are told of another bundle of authorities.
const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_cafile",
    "CARGO_HTTP_CAINFO",
];

/// How this machine reaches the registries that build steps download from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Whether the machine has a bundle of certificate authorities, which may hold one of its own that
    /// a build must trust too: that of a mirror or of a proxy that opens TLS.
    pub has_authorities: bool,
    /// Proxy variables (`http_proxy`, `https_proxy`, `no_proxy`) for programs that download.
    pub proxies: BTreeMap<String, String>,
}

/// What is to be done in the sandbox of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work<'a> {
    /// A command, as `/bin/sh -e -c COMMAND`, with stdin empty; its exit with 0 is success.
    Command(&'a str),
    /// A warm start of its interpreters is to be kept in it. It may have none that can.
    Warm,
}

/// One step of a build, for the caller to carry out in a sandbox of its own, with a network. When it
/// succeeds the sandbox's upper layer, its processes ended and its mount gone, is the result;
/// otherwise the caller answers [`ImageError::StepFailed`], or [`ImageError::Sandbox`] when there was
/// no sandbox.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// Line of the instruction in the recipe, for errors.
    pub line: usize,
    /// The root below it. Its environment is not what the command gets: see `env`.
    pub rootfs: &'a Rootfs,
    /// What to do.
    pub work: Work<'a>,
    /// Environment of a command: the image's, and what downloads on this machine need.
    pub env: BTreeMap<String, String>,
    /// Where the command starts; absolute.
    pub workdir: &'a str,
    /// Trees of the machine; their places below the root exist.
    pub binds: Vec<Bind>,
    /// Says when to stop; the answer is then [`ImageError::Cancelled`].
    pub cancel: &'a Cancel,
}

/// Carries out a [`RunStep`]: returns the number of its sandbox. The finished upper layer is `N/upper`
/// in the directory `sandboxes` beside the store, and the build's from then on. Lines that the command
/// writes go to the second argument as they come.
pub type Run<'a> = dyn FnMut(&RunStep<'_>, &mut dyn FnMut(&str)) -> Result<u64, ImageError> + 'a;

/// One build.
#[derive(Debug)]
pub struct Build<'a> {
    /// Where layers come from and go to.
    pub store: &'a Store,
    /// What to call the result.
    pub name: &'a ImageRef,
    /// What to build.
    pub recipe: &'a Recipe,
    /// How this machine downloads.
    pub downloads: &'a Downloads,
    /// Names what keeps warm starts; one kept by another is made again. None: images have none.
    pub warm: Option<&'a str>,
    /// Says when to stop.
    pub cancel: &'a Cancel,
}

impl Build<'_> {
    /// Builds, blocking, for minutes perhaps. `progress` gets a [`BuildEvent::Step`] as each
    /// instruction begins and a [`BuildEvent::Log`] for each line; `Done` and `Failed` are the
    /// caller's to say.
    ///
    /// # Errors
    /// Any [`ImageError`]. Layers of the steps before the failing one stay in the store; the name
    /// means what it meant before.
    pub fn run(
        &self,
        run: &mut Run<'_>,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<Image, ImageError> {
        store::check_name(self.name)?;
        let mut stack = Stack {
            changes: self.store.changes()?,
            key: LayerKey::base(""),
            layers: Vec::new(),
            settings: Settings::base(),
            is_cached: true,
        };
        self.base(&mut stack, progress)?;
        for (index, step) in self.recipe.steps.iter().enumerate() {
            self.check_cancel()?;
            self.step(index, step, &mut stack, run, progress)?;
        }
        let before_warm = self.warm(&mut stack, run, progress)?;
        let Stack { key, layers, settings, changes, .. } = stack;
        // The size is found out by whoever may look into every layer.
        let manifest = Manifest { key, layers, before_warm, settings, size_bytes: 0 };
        self.store.put(self.name, manifest, &changes)
    }

    /// Adds a layer with a warm start, where that can be had; the key before it.
    fn warm(
        &self,
        stack: &mut Stack<'_>,
        run: &mut Run<'_>,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<Option<LayerKey>, ImageError> {
        let Some(version) = self.warm.filter(|_| stack.layers.len() < LAYERS) else {
            return Ok(None);
        };
        self.check_cancel()?;
        let key = stack.key.then(&format!("warm {version}"));
        if !stack.is_cached || !self.store.has_layer(&key) {
            let rootfs = Store::rootfs(&stack.layers, &stack.settings);
            let step = RunStep {
                line: self.recipe.steps.last().map_or(self.recipe.base_line, |step| step.line),
                rootfs: &rootfs,
                work: Work::Warm,
                env: rootfs.env.clone(),
                workdir: &rootfs.workdir,
                binds: rootfs.binds.clone(),
                cancel: self.cancel,
            };
            let mut log = |line: &str| progress(BuildEvent::Log { line: line.to_owned() });
            match run(&step, &mut log) {
                Ok(sandbox) => self.store.take_upper(&key, sandbox, &stack.changes)?,
                // An image without one is as good, and slower.
                Err(ImageError::StepFailed { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        stack.layers.push(key.clone());
        Ok(Some(std::mem::replace(&mut stack.key, key)))
    }

    /// Carries out FROM.
    fn base(
        &self,
        stack: &mut Stack<'_>,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), ImageError> {
        let base = &self.recipe.base;
        let refuse =
            |reason| ImageError::Base { line: self.recipe.base_line, base: base.clone(), reason };
        let title = format!("FROM {base}");
        if let Some(release) = Release::named(base) {
            let release = release.map_err(refuse)?;
            stack.key = release.key();
            stack.layers = vec![stack.key.clone()];
            stack.is_cached = self.store.has_layer(&stack.key);
            progress(self.step_event(0, title, stack.is_cached));
            return if stack.is_cached { Ok(()) } else { self.bootstrap(release, stack, progress) };
        }
        if base.name() == HOST {
            return Err(refuse(
                "its files are this machine's and change with it; build on debian:bookworm or on \
                 an image of the store"
                    .to_owned(),
            ));
        }
        let manifest = self.store.manifest_of(base).map_err(|error| match error {
            ImageError::NotFound(_) => refuse(
                "it is neither in the store (`sandbar image ls`) nor debian:bookworm".to_owned(),
            ),
            other => other,
        })?;
        stack.key = manifest.key;
        stack.layers = manifest.layers;
        if let Some(before) = manifest.before_warm {
            stack.key = before;
            stack.layers.pop();
        }
        stack.settings = manifest.settings;
        progress(self.step_event(0, title, true));
        Ok(())
    }

    fn bootstrap(
        &self,
        release: Release,
        stack: &Stack<'_>,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), ImageError> {
        let proxies = self.downloads.proxies.clone();
        let mut log = |line: &str| progress(BuildEvent::Log { line: line.to_owned() });
        debian::check_tools()?;
        self.store.make_base(release, proxies, &stack.changes, (self.cancel, &mut log))
    }

    /// Carries out the instruction after `index` others.
    fn step(
        &self,
        index: usize,
        step: &Step,
        stack: &mut Stack<'_>,
        run: &mut Run<'_>,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), ImageError> {
        let key = stack.key.then(&step.source);
        let fault = |message| ImageError::Recipe(RecipeError::one(step.line, message));
        stack.settings.apply(&step.instruction).map_err(fault)?;
        let rootfs = Store::rootfs(&stack.layers, &stack.settings);
        let command = command(&step.instruction, &rootfs, self.store.path());
        // Once a step was carried out, what is in the store for later steps stands on a layer
        // that is no more.
        stack.is_cached &= command.is_none() || self.store.has_layer(&key);
        progress(self.step_event(index + 1, step.title(), stack.is_cached));
        if let Some((command, workdir)) = command {
            if stack.layers.len() == LAYERS {
                return Err(ImageError::TooManyLayers { line: step.line, limit: LAYERS });
            }
            if !stack.is_cached {
                let (env, binds) = self.with_downloads(&rootfs);
                let run_step = RunStep {
                    line: step.line,
                    rootfs: &rootfs,
                    work: Work::Command(&command),
                    env,
                    workdir,
                    binds,
                    cancel: self.cancel,
                };
                let mut log = |line: &str| progress(BuildEvent::Log { line: line.to_owned() });
                let sandbox = run(&run_step, &mut log)?;
                self.store.take_upper(&key, sandbox, &stack.changes)?;
            }
            stack.layers.push(key.clone());
        }
        stack.key = key;
        Ok(())
    }

    /// The image's environment and binds, and what downloads need beside them. What the recipe
    /// sets wins.
    fn with_downloads(&self, rootfs: &Rootfs) -> (BTreeMap<String, String>, Vec<Bind>) {
        let mut env = self.downloads.proxies.clone();
        let mut binds = rootfs.binds.clone();
        if self.downloads.has_authorities {
            binds.push(Bind::Authorities);
            let path = Path::new("/").join(HOST_CA).display().to_string();
            env.extend(CA_VARIABLES.map(|name| (name.to_owned(), path.clone())));
        }
        env.extend(rootfs.env.clone());
        (env, binds)
    }

    fn step_event(&self, index: usize, instruction: String, cached: bool) -> BuildEvent {
        BuildEvent::Step {
            index: index + 1,
            total: self.recipe.steps.len() + 1,
            instruction,
            cached,
        }
    }

    fn check_cancel(&self) -> Result<(), ImageError> {
        if self.cancel.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(()) }
    }
}

/// What the instructions so far amount to.
#[derive(Debug)]
struct Stack<'a> {
    /// Keeps others from changing the store under this build.
    changes: Changes<'a>,
    key: LayerKey,
    /// Lowest first.
    layers: Vec<LayerKey>,
    settings: Settings,
    /// Whether every layer so far was in the store before this build.
    is_cached: bool,
}

/// The command that an instruction needs run, and where it starts. `rootfs` is what holds after
/// the instruction's settings.
fn command<'a>(
    instruction: &'a Instruction,
    rootfs: &'a Rootfs,
    images: &Path,
) -> Option<(Cow<'a, str>, &'a str)> {
    match instruction {
        Instruction::Run(command) => Some((command.into(), &rootfs.workdir)),
        Instruction::Workdir(_) if !rootfs.surely_has_directory(images, &rootfs.workdir) => {
            // The shell of the image makes it, as only a mounted root has its links in force.
            Some((format!("mkdir -p -- {}", quote(&rootfs.workdir)).into(), "/"))
        }
        Instruction::Workdir(_) | Instruction::Env(_) | Instruction::Label(_) => None,
    }
}

/// `text` as one word of a shell command.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
