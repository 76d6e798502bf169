use std::{fs, path::Path};

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads `file` (none when empty), `environment` and `flags`.
fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sandbar.toml");
    fs::write(&path, file).unwrap();
    let mut all = pairs(flags);
    all.push(("config".to_owned(), path.to_str().unwrap().to_owned()));
    let environment = pairs(environment).into_iter().collect();
    Config::from_sources(&Sources { environment, flags: all })
}

/// The faults, with the file's directory taken off.
fn faults(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let error = load(file, environment, flags).expect_err("has faults");
    error
        .faults
        .iter()
        .map(|fault| {
            let text = fault.to_string();
            text.split_once("/sandbar.toml")
                .map_or(text.clone(), |(_, rest)| format!("sandbar.toml{rest}"))
        })
        .collect()
}

#[test]
fn without_sources_the_defaults_hold() {
    let config = load("", &[], &[]).unwrap();

    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8787");
    assert!(config.api.key.is_none());
    assert_eq!(config.node.state_dir, Path::new("/var/lib/sandbar"));
    assert_eq!(config.node.name, "sandbar");
    assert_eq!(config.node.uid_base, 1 << 30);
    assert_eq!(config.node.max_sandboxes, 1000);
    let network = config.node.network.unwrap();
    assert_eq!((network.base.to_string().as_str(), network.prefix), ("10.213.0.0", 16));
    assert!(config.limits.default.memory_bytes <= config.limits.max.memory_bytes);
    assert_eq!(config.limits.default.pids, 1024);
}

#[test]
fn flags_go_over_environment_over_file_over_defaults() {
    let file = "name = \"file\"\nlaunchers = 2\nmax_sandboxes = 7\n";
    let environment = [("SANDBAR_NAME", "env"), ("SANDBAR_LAUNCHERS", "3"), ("PATH", "/bin")];
    let config = load(file, &environment, &[("name", "flag")]).unwrap();

    assert_eq!(config.node.name, "flag");
    assert_eq!(config.node.launchers, 3);
    assert_eq!(config.node.max_sandboxes, 7);
    let print = config.print();
    let line = |start: &str| {
        let line = print.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("name "), ["name", "flag", "--set", "name"]);
    assert_eq!(line("launchers "), ["launchers", "3", "SANDBAR_LAUNCHERS"]);
    assert!(line("max_sandboxes ")[2].ends_with("sandbar.toml:3"));
    assert_eq!(line("uid_base "), ["uid_base", "1073741824", "default"]);
}

#[test]
fn every_fault_is_reported_at_once_with_its_place() {
    let file = "listen = 8787\n\
                nmae = \"x\"\n\
                [limits.default]\n\
                memory = \"2 gigs\"\n\
                pids = 4\n\
                [network]\n\
                subnet = \"10.213.0.1/16\"\n";
    let environment = [("SANDBAR_LIMITS_MAX_CPUS", "many"), ("SANDBAR_STATE_DIRR", "/x")];

    let faults = faults(file, &environment, &[("log.format", "xml"), ("state_dir", "relative")]);

    let starts = [
        "sandbar.toml:2: no setting is called nmae; did you mean name?",
        "SANDBAR_STATE_DIRR: no such setting; did you mean SANDBAR_STATE_DIR?",
        "sandbar.toml:1: listen is \"8787\"",
        "--set state_dir: state_dir is \"relative\"; write an absolute path",
        "sandbar.toml:7: network.subnet is \"10.213.0.1/16\", whose address has bits outside",
        "SANDBAR_LIMITS_MAX_CPUS: limits.max.cpus is \"many\"; write a number of CPUs",
        "sandbar.toml:4: limits.default.memory is \"2 gigs\"; write a size from 16MiB",
        "sandbar.toml:5: limits.default.pids is \"4\"; write a whole number from 8",
        "--set log.format: log.format is \"xml\"; write text or json",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault:?} does not start with {start:?}");
    }
}

#[test]
fn a_fault_hidden_by_a_higher_source_is_still_a_fault() {
    let faults = faults("name = \"TOO LOUD\"\n", &[("SANDBAR_NAME", "good")], &[]);

    assert_eq!(
        faults,
        ["sandbar.toml:1: name is \"TOO LOUD\"; write 1 to 8 lower-case letters and digits"]
    );
}

#[test]
fn a_broken_line_does_not_hide_the_other_faults() {
    let faults = faults("name = \n[limits]\nmaxx = 1\n", &[], &[("launchers", "0")]);

    assert!(faults[0].starts_with("sandbar.toml:1: not TOML: "), "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.starts_with("sandbar.toml:3: no setting")));
    assert!(faults.iter().any(|fault| fault.starts_with("--set launchers: ")));
}

#[test]
fn an_address_others_can_reach_needs_a_key() {
    for listen in ["0.0.0.0:8787", "192.168.1.4:80", "[::]:8787"] {
        let found = faults("", &[], &[("listen", listen)]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(&format!("--set listen: {listen} can be reached")),
            "{found:?}"
        );
    }
    let key = "k".repeat(32);
    let config = load("", &[("SANDBAR_KEY", &key)], &[("listen", "0.0.0.0:8787")]).unwrap();
    assert_eq!(config.api.key.unwrap().reveal(), key);
    for listen in ["127.0.0.1:1", "127.9.9.9:80", "[::1]:8787", "localhost:0"] {
        assert!(load("", &[], &[("listen", listen)]).is_ok(), "{listen}");
    }
}

#[test]
fn keys_are_checked_and_never_shown() {
    let weak = faults("", &[("SANDBAR_KEY", "hunter2")], &[]);
    assert_eq!(weak, ["SANDBAR_KEY: key has not 32 to 256 characters"]);

    let key = "s3cr3t-".repeat(8);
    let print = load("", &[("SANDBAR_KEY", &key)], &[]).unwrap().print();
    assert!(print.contains("(set)") && !print.contains("s3cr3t"));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, format!("{key}\n")).unwrap();
    let path = path.to_str().unwrap();
    let config = load("", &[], &[("key_file", path)]).unwrap();
    assert_eq!(config.api.key.unwrap().reveal(), key);
    let both = faults("", &[("SANDBAR_KEY", &key)], &[("key_file", path)]);
    assert_eq!(both, ["--set key_file: key and key_file are both set; keep one of them"]);
    let missing = faults("", &[], &[("key_file", "/nonexistent/key")]);
    assert!(missing[0].contains("/nonexistent/key, which cannot be read"), "{missing:?}");
}

#[test]
fn sandboxes_must_have_addresses_and_ids() {
    let few = load("network.subnet = \"10.1.2.0/28\"", &[], &[]).unwrap();
    assert_eq!(few.node.max_sandboxes, 13);
    let none = load("network.subnet = \"none\"", &[], &[]).unwrap();
    assert_eq!((none.node.max_sandboxes, none.node.network), (1000, None));

    let narrow = faults("network.subnet = \"10.1.2.0/28\"\nmax_sandboxes = 14", &[], &[]);
    assert!(narrow[0].contains("has addresses for 13"), "{narrow:?}");
    let ids = faults("uid_base = 4294770688\nmax_sandboxes = 3", &[], &[]);
    assert!(ids[0].starts_with("sandbar.toml:2: max_sandboxes is 3, but above"), "{ids:?}");
    assert_eq!(
        load("uid_base = 4294770688\nmax_sandboxes = 2", &[], &[]).unwrap().node.uid_base,
        4_294_770_688
    );
}

#[test]
fn ranges_hold_at_their_ends() {
    #[rustfmt::skip]
    let table = [
        ("name", "abcd1234", true), ("name", "", true), ("name", "abcd12345", false), ("name", "a-b", false),
        ("launchers", "1", true), ("launchers", "64", true), ("launchers", "65", false), ("launchers", "-1", false),
        ("uid_base", "65536", true), ("uid_base", "65535", false), ("uid_base", "100000", false), ("uid_base", "4294901760", false),
        ("network.subnet", "192.168.4.0/24", true), ("network.subnet", "100.64.0.0/16", true),
        ("network.subnet", "8.8.8.0/24", false), ("network.subnet", "10.0.0.0/15", false),
        ("network.subnet", "10.0.0.0/29", false), ("network.subnet", "fd00::/64", false), ("network.subnet", "10.0.0.0", false),
        ("network.name_servers", "9.9.9.9, ::1", true), ("network.name_servers", "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4", false),
        ("preview.trusted_proxies", "10.0.0.0/8, ::1", true), ("preview.trusted_proxies", "proxy.example", false),
        ("preview.trusted_proxies", "10.0.0.0/33", false), ("kept_memory", "0B", true), ("kept_memory", "some", false),
        ("network.name_servers", "dns.example", false), ("network.name_servers", "9.9.9.9:53", false),
        ("limits.default.memory", "16MiB", true), ("limits.default.memory", "15MiB", false),
        ("limits.default.pids", "8", true), ("limits.default.cpus", "0.01", true), ("limits.default.cpus", "0.009", false),
        ("limits.default.cpu_weight", "1", true), ("limits.default.cpu_weight", "0", false), ("limits.default.cpu_weight", "1001", false),
        ("limits.max.cpu_weight", "10000", true), ("limits.max.cpu_weight", "10001", false),
        ("log.level", "info,engine=debug", true), ("log.level", "verbose", false), ("log.level", "info,", false),
        ("allowed_hosts", "sandbar.example.com, [::1]", true), ("allowed_hosts", "http://x", false), ("allowed_hosts", "x:80", false),
        ("allowed_origins", "https://App.example.com, http://localhost:5173", true), ("allowed_origins", "http://[::1]:3000", true),
        ("allowed_origins", "*", false), ("allowed_origins", "null", false), ("allowed_origins", "app.example.com", false),
        ("allowed_origins", "https://x/", false), ("allowed_origins", "https://x:443", false), ("allowed_origins", "https://x:0", false),
        ("allowed_origins", "https://u@x", false), ("allowed_origins", "https://*.x", false), ("allowed_origins", "ws://x", false),
        ("allowed_hosts", "*.example.com", false), ("default_image", "x:1", true), ("default_image", "X", false),
        ("state_dir", "/", true), ("state_dir", "/a/../b", false),
    ];
    for (name, value, is_good) in table {
        // An empty flag is a value; only an empty variable is none.
        let is_good = is_good && !value.is_empty();
        assert_eq!(load("", &[], &[(name, value)]).is_ok(), is_good, "{name} = {value:?}");
    }
}

#[test]
fn a_default_limit_over_its_ceiling_is_a_fault_unless_it_is_the_products() {
    let lowered = load("limits.max.memory = \"64MiB\"\nlimits.max.cpus = 0.5", &[], &[]).unwrap();
    assert_eq!(lowered.limits.default.memory_bytes, 64 << 20);
    assert_eq!(lowered.limits.default.cpu_millis, 500);

    let over = faults("limits.max.pids = 10\nlimits.default.pids = 11", &[], &[]);
    assert_eq!(
        over,
        ["sandbar.toml:2: limits.default.pids is over limits.max.pids; lower it or raise \
          limits.max.pids"]
    );
}

#[test]
fn proxies_come_from_the_machines_environment() {
    let environment =
        [("HTTP_PROXY", "upper"), ("http_proxy", "lower"), ("NO_PROXY", "x"), ("https_proxy", "")];
    let config = load("", &environment, &[]).unwrap();

    let expected = [("http_proxy", "lower"), ("no_proxy", "x")];
    assert_eq!(config.node.proxies, pairs(&expected).into_iter().collect());
}

#[test]
fn pages_of_sandboxes_are_not_trusted() {
    for (origin, preview, is_good) in [
        ("http://localhost:5173", "", true),
        ("http://3000-box.localhost:8787", "", false),
        ("https://app.example.com", "https://preview.example.com", true),
        ("https://x.preview.example.com", "https://preview.example.com", false),
        ("http://x.localhost", "https://preview.example.com", true),
    ] {
        let flags = [("allowed_origins", origin), ("preview.url", preview)];
        let given = if preview.is_empty() { &flags[..1] } else { &flags[..] };
        assert_eq!(load("", &[], given).is_ok(), is_good, "{origin} {preview}");
    }
}

#[test]
fn wrong_shapes_are_named() {
    for (file, expected) in [
        ("name = [\"a\"]", "name is a list; write one value"),
        ("name = 2020-01-01", "name is datetime"),
        ("limits = 3", "limits is a section: write [limits]"),
        ("allowed_hosts = [[1]]", "allowed_hosts is an array of something other than texts"),
        ("memory = 1", "no setting is called memory; there are listen"),
        ("[limits.default]\ncpu = 1", "did you mean limits.default.cpus?"),
        ("state_dir.x = 1", "state_dir is table"),
    ] {
        let found = faults(file, &[], &[]);
        assert!(found.len() == 1 && found[0].contains(expected), "{file}: {found:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_unless_it_is_the_optional_one() {
    let flags = pairs(&[("config", "/nonexistent/sandbar.toml")]);
    let error = Config::from_sources(&Sources { flags, ..Sources::default() }).unwrap_err();
    assert!(error.to_string().contains("--config: /nonexistent/sandbar.toml cannot be read"));

    let environment = pairs(&[("SANDBAR_CONFIG", "/nonexistent/s.toml")]).into_iter().collect();
    let error = Config::from_sources(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert!(error.to_string().contains("SANDBAR_CONFIG: /nonexistent/s.toml cannot be read"));
}

const SAMPLE: &str = include_str!("../../../../deploy/sandbar.toml");

#[test]
fn the_sample_file_is_the_defaults() {
    let sample = load(SAMPLE, &[], &[]).unwrap();
    let defaults = load("", &[], &[]).unwrap();

    let shown = |config: &Config| {
        // Ceilings default to the machine's size, which a sample cannot know.
        let values = config.effective.iter().filter(|value| !value.setting.contains(".max."));
        values
            .filter(|value| value.setting != "launchers")
            .map(|value| (value.setting, value.shown.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&sample), shown(&defaults));
}

#[test]
fn the_sample_file_names_every_setting() {
    // Settings without a fixed default are in it as comments.
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut faults = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sandbar.toml");
    fs::write(&path, uncommented).unwrap();
    let flags = vec![("config".to_owned(), path.to_str().unwrap().to_owned())];
    let given = Sources { flags, ..Sources::default() }.collect(&mut faults);

    assert_eq!(faults, []);
    for setting in SETTINGS {
        assert!(given.iter().any(|given| given.setting == setting.name), "{}", setting.name);
    }
}
