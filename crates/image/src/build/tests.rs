//! Builds over a base layer made here, with a caller that writes files instead of running
//! commands: what is tested is the plan, not the kernel.

use std::fs;

use tempfile::TempDir;

use super::*;

/// A store with the image `base`: one layer with the directories that every base has.
struct Bench {
    dir: TempDir,
    store: Store,
    downloads: Downloads,
    cancel: Cancel,
    /// Commands carried out so far, with the directory each started in.
    ran: Vec<(String, String)>,
    /// The command that fails.
    failing: Option<&'static str>,
    /// What keeps warm starts.
    warm: Option<&'static str>,
}

/// What a sandbox leaves that has carried out a command.
fn upper(dir: &Path, sandbox: u64, command: &str) -> u64 {
    let upper = dir.join(format!("sandboxes/{sandbox}/upper"));
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join("made-by"), command).unwrap();
    sandbox
}

/// Progress as text: `index/total instruction`, with `*` when cached.
type Events = Vec<String>;

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let scratch = store.scratch().unwrap();
        fs::create_dir(scratch.path().join("workspace")).unwrap();
        let key = LayerKey::base("test");
        store.commit_layer(&key, scratch.path()).unwrap();
        let manifest = Manifest {
            key: key.clone(),
            layers: vec![key],
            before_warm: None,
            settings: Settings::base(),
            size_bytes: 0,
        };
        store.put(&"base".parse().unwrap(), manifest, &store.changes().unwrap()).unwrap();
        Self {
            dir,
            store,
            downloads: Downloads::default(),
            cancel: Cancel::default(),
            ran: Vec::new(),
            failing: None,
            warm: None,
        }
    }

    fn build(&mut self, name: &str, recipe: &str) -> (Result<Image, ImageError>, Events) {
        let recipe = Recipe::parse(recipe).unwrap();
        let build = Build {
            store: &self.store,
            name: &name.parse().unwrap(),
            recipe: &recipe,
            downloads: &self.downloads,
            cancel: &self.cancel,
            warm: self.warm,
        };
        let mut events = Vec::new();
        let (ran, failing, dir) = (&mut self.ran, self.failing, self.dir.path());
        let mut run = |step: &RunStep<'_>, log: &mut dyn FnMut(&str)| {
            let command = match step.work {
                Work::Command(command) => command,
                Work::Warm => "(warm)",
            };
            ran.push((command.to_owned(), step.workdir.to_owned()));
            log("a line");
            if failing == Some(command) {
                let ending = "exited with code 1".to_owned();
                return Err(ImageError::StepFailed { line: step.line, ending });
            }
            Ok(upper(dir, ran.len() as u64, command))
        };
        let result = build.run(&mut run, &mut |event| match event {
            BuildEvent::Step { index, total, instruction, cached } => {
                let mark = if cached { "*" } else { "" };
                events.push(format!("{index}/{total} {instruction}{mark}"));
            }
            BuildEvent::Log { line } => events.push(line),
            other => panic!("{other:?}"),
        });
        (result, events)
    }

    fn commands(&mut self) -> Vec<String> {
        self.ran.drain(..).map(|(command, _)| command).collect()
    }
}

#[test]
fn a_warm_start_is_the_image_s_own_and_made_again_for_another_agent() {
    let mut bench = Bench::new();
    bench.warm = Some("one");
    let app = bench.build("app", "FROM base\nRUN a\n").0.unwrap();
    assert_eq!((app.layers, bench.commands()), (3, vec!["a".to_owned(), "(warm)".to_owned()]));

    let again = bench.build("app", "FROM base\nRUN a\n").0.unwrap();
    assert_eq!((again.digest == app.digest, bench.commands()), (true, vec![]));

    let on_it = bench.build("on-it", "FROM app\nRUN b\n").0.unwrap();
    assert_eq!((on_it.layers, bench.commands()), (4, vec!["b".to_owned(), "(warm)".to_owned()]));

    bench.warm = Some("two");
    let other = bench.build("app", "FROM base\nRUN a\n").0.unwrap();
    assert_ne!(other.digest, app.digest);
    assert_eq!(bench.commands(), ["(warm)"]);

    bench.failing = Some("(warm)");
    let without = bench.build("without", "FROM base\nRUN c\n").0.unwrap();
    assert_eq!(without.layers, 2);
}

const THREE: &str = "FROM base\nRUN a\nENV X=1\nRUN b\nLABEL l=m\nRUN c\n";

#[test]
fn each_run_becomes_a_layer_and_settings_become_none() {
    let mut bench = Bench::new();

    let (image, events) = bench.build("app", THREE);

    let image = image.unwrap();
    assert_eq!(
        events,
        [
            "1/6 FROM base*",
            "2/6 RUN a",
            "a line",
            "3/6 ENV X=1",
            "4/6 RUN b",
            "a line",
            "5/6 LABEL l=m",
            "6/6 RUN c",
            "a line"
        ]
    );
    assert_eq!(image.layers, 4);
    assert!(image.size_bytes > 0);
    let (found, rootfs) = bench.store.get(&"app".parse().unwrap()).unwrap();
    assert_eq!(found, image);
    assert_eq!(rootfs.env["X"], "1");
    let top: Vec<_> = rootfs.layers[..3]
        .iter()
        .map(|layer| bench.store.path_of(layer).join("made-by"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    assert_eq!(top, ["c", "b", "a"]);
}

#[test]
fn a_failed_build_goes_on_from_the_step_that_failed() {
    let mut bench = Bench::new();
    bench.failing = Some("b");
    let (result, _) = bench.build("app", THREE);
    assert!(matches!(result, Err(ImageError::StepFailed { line: 4, .. })));
    assert!(matches!(bench.store.get(&"app".parse().unwrap()), Err(ImageError::NotFound(_))));
    assert_eq!(bench.commands(), ["a", "b"]);

    bench.failing = None;
    let (image, events) = bench.build("app", THREE);

    image.unwrap();
    assert_eq!(bench.commands(), ["b", "c"]);
    assert_eq!(events[..4], ["1/6 FROM base*", "2/6 RUN a*", "3/6 ENV X=1*", "4/6 RUN b"]);
}

#[test]
fn the_same_recipe_is_built_once_and_has_one_digest() {
    let mut bench = Bench::new();
    let first = bench.build("app", THREE).0.unwrap();
    bench.commands();

    let again = bench.build("other", &format!("# a comment\n{THREE}")).0.unwrap();

    assert_eq!(bench.commands(), [""; 0]);
    assert_eq!(first.digest, again.digest);
}

#[test]
fn a_changed_instruction_redoes_it_and_all_after_it() {
    let mut bench = Bench::new();
    let first = bench.build("app", THREE).0.unwrap();
    bench.commands();

    let changed = bench.build("app", &THREE.replace("X=1", "X=2")).0.unwrap();

    assert_eq!(bench.commands(), ["b", "c"]);
    assert_ne!(first.digest, changed.digest);
    bench.store.by_digest(&first.digest).unwrap();
}

#[test]
fn a_step_over_a_layer_that_had_to_be_made_again_is_made_again_too() {
    let mut bench = Bench::new();
    bench.build("app", THREE).0.unwrap();
    bench.commands();
    let key = LayerKey::base("test").then("RUN a");
    fs::remove_dir_all(bench.store.layer_path(&key)).unwrap();

    bench.build("app", THREE).0.unwrap();

    assert_eq!(bench.commands(), ["a", "b", "c"]);
}

#[test]
fn an_image_of_the_store_is_built_on_with_its_layers_and_settings() {
    let mut bench = Bench::new();
    bench.build("app", &format!("{THREE}WORKDIR /\n")).0.unwrap();
    bench.commands();

    let image = bench.build("more:1", "FROM app\nENV Y=$X\nRUN d").0.unwrap();

    assert_eq!(bench.ran, [("d".to_owned(), "/".to_owned())]);
    assert_eq!(image.layers, 5);
    let (_, rootfs) = bench.store.get(&"more:1".parse().unwrap()).unwrap();
    assert_eq!((&*rootfs.env["X"], &*rootfs.env["Y"]), ("1", "1"));
}

#[test]
fn a_workdir_that_is_not_there_is_made_in_a_layer() {
    let mut bench = Bench::new();

    let recipe = "FROM base\nWORKDIR /workspace\nRUN a\nWORKDIR \"/it's/new\"\nRUN b";
    let image = bench.build("app", recipe).0.unwrap();

    let ran: Vec<_> = bench.ran.iter().map(|(c, w)| (c.as_str(), w.as_str())).collect();
    let mkdir = ("mkdir -p -- '/it'\\''s/new'", "/");
    assert_eq!(ran, [("a", "/workspace"), mkdir, ("b", "/it's/new")]);
    assert_eq!(image.layers, 4);
}

#[test]
fn what_downloads_need_reaches_commands_and_not_the_image() {
    let mut bench = Bench::new();
    bench.downloads = Downloads {
        has_authorities: true,
        proxies: BTreeMap::from([("http_proxy".to_owned(), "http://p".to_owned())]),
    };
    let recipe = Recipe::parse("FROM base\nENV PIP_CERT=/own\nRUN a").unwrap();
    let build = Build {
        store: &bench.store,
        name: &"app".parse().unwrap(),
        recipe: &recipe,
        downloads: &bench.downloads,
        cancel: &bench.cancel,
        warm: None,
    };
    let mut seen = None;

    let mut run = |step: &RunStep<'_>, _: &mut dyn FnMut(&str)| {
        seen = Some((step.env.clone(), step.binds.clone()));
        Ok(upper(bench.dir.path(), 1, "a"))
    };
    build.run(&mut run, &mut |_| {}).unwrap();

    let (env, binds) = seen.unwrap();
    assert_eq!(binds, [Bind::Authorities]);
    assert_eq!(env["SSL_CERT_FILE"], format!("/{HOST_CA}"));
    assert_eq!(env["http_proxy"], "http://p");
    assert_eq!(env["PIP_CERT"], "/own");
    let (_, rootfs) = bench.store.get(&"app".parse().unwrap()).unwrap();
    assert_eq!(rootfs.env.keys().collect::<Vec<_>>(), ["PATH", "PIP_CERT"]);
}

#[test]
fn bases_that_cannot_be_built_on_are_refused_with_the_reason() {
    let mut bench = Bench::new();
    for (base, word) in [("host", "change"), ("debian", "release"), ("ubuntu:24.04", "store")] {
        let error = bench.build("app", &format!("FROM {base}\n")).0.unwrap_err();

        assert!(matches!(error, ImageError::Base { line: 1, .. }), "{base}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(matches!(bench.build("host", THREE).0, Err(ImageError::Reserved { .. })));
}

#[test]
fn a_cancelled_build_stops_between_steps_and_a_second_one_is_told_to_wait() {
    let mut bench = Bench::new();
    bench.cancel.cancel();
    assert!(matches!(bench.build("app", THREE).0, Err(ImageError::Cancelled)));
    assert_eq!(bench.commands(), [""; 0]);

    bench.cancel = Cancel::default();
    let store = Store::open(bench.dir.path().join("images")).unwrap();
    let store = std::mem::replace(&mut bench.store, store);
    let _changes = store.changes().unwrap();
    let recipe = Recipe::parse(THREE).unwrap();
    let build = Build {
        store: &store,
        name: &"app".parse().unwrap(),
        recipe: &recipe,
        downloads: &bench.downloads,
        cancel: &bench.cancel,
        warm: None,
    };
    let refused = build.run(&mut |_, _| panic!("nothing runs"), &mut |_| {});
    assert!(matches!(refused, Err(ImageError::Busy)));
}

#[test]
fn more_layers_than_overlayfs_should_stack_are_refused() {
    let mut bench = Bench::new();
    let recipe = format!("FROM base\n{}", "RUN a\n".repeat(LAYERS));

    let error = bench.build("app", &recipe).0.unwrap_err();

    assert!(matches!(error, ImageError::TooManyLayers { line, .. } if line == LAYERS + 1));
    assert_eq!(bench.ran.len(), LAYERS - 1);
}

#[test]
fn a_setting_over_its_limit_is_a_fault_of_its_line() {
    let mut bench = Bench::new();
    let error = bench.build("app", "FROM base\nWORKDIR $NONE\n").0.unwrap_err();

    assert!(error.to_string().starts_with("line 2: "), "{error}");
}
