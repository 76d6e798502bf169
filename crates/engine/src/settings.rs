//! What a sandbox was asked to be, with everything filled in.

use std::collections::BTreeMap;

use api::{
    error::{ApiError, ErrorCode},
    exec::Command,
    id::ImageRef,
    idle::{EffectiveIdle, IdleSettings, LEAST_MS, MOST_MS},
    limit::{ENV_BYTES, ENV_VAR_BYTES, ENV_VARS, LABEL_BYTES, LABELS, NETWORK_RULES, SERVICES},
    network::NetworkPolicy,
    sandbox::{CreateSandbox, EffectiveResources},
    service::Service,
};
use jail::{Limits, Volumes};
use serde::{Deserialize, Serialize};

use crate::{EngineError, config::EngineConfig, error, network};

/// Least bytes of memory: below this not even a shell and its libraries fit.
const MIN_MEMORY_BYTES: u64 = 16 * 1024 * 1024;

/// Least processes and threads: a shell with a short pipeline.
const MIN_PIDS: u32 = 8;

/// Least thousandths of a CPU: the kernel's shortest quota (1 ms per 100 ms period).
const MIN_CPU_MILLIS: u32 = 10;

/// Least bytes of disk: below this not even the file system's own bookkeeping fits.
pub(crate) const MIN_DISK_BYTES: u64 = 16 * 1024 * 1024;

/// Port of mail servers, RFC 5321.
const MAIL: u16 = 25;

/// Bytes of a command that is started with the sandbox: a line that starts a script, or a short one.
/// It is part of the sandbox's record.
const COMMAND_BYTES: usize = 16 * 1024;

/// What a sandbox was asked to be, with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) image: ImageRef,
    pub(crate) resources: EffectiveResources,
    pub(crate) network: NetworkPolicy,
    /// How often `network` has been changed.
    #[serde(default)]
    pub(crate) network_revision: u64,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Started by itself whenever the sandbox is started.
    #[serde(default)]
    pub(crate) on_start: Option<Command>,
    /// Kept running by the agent.
    #[serde(default)]
    pub(crate) services: Vec<Service>,
    /// Records of before there was a ladder have none.
    #[serde(default)]
    pub(crate) idle: EffectiveIdle,
    /// Milliseconds from the creation to the destruction; 0: none.
    #[serde(default)]
    pub(crate) ttl_ms: u64,
}

impl Settings {
    /// Fills in the node's defaults and checks everything against the limits.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    pub(crate) fn of(request: CreateSandbox, config: &EngineConfig) -> Result<Self, EngineError> {
        let (asked, default, most) = (request.resources, config.default_limits, config.max_limits);
        let resources = EffectiveResources {
            memory_bytes: within(
                "resources.memoryBytes",
                asked.memory_bytes.unwrap_or(default.memory_bytes),
                MIN_MEMORY_BYTES,
                most.memory_bytes,
            )?,
            pids: within(
                "resources.pids",
                asked.pids.unwrap_or(default.pids),
                MIN_PIDS,
                most.pids,
            )?,
            cpu_millis: within(
                "resources.cpuMillis",
                asked.cpu_millis.unwrap_or(default.cpu_millis),
                MIN_CPU_MILLIS,
                most.cpu_millis,
            )?,
            cpu_weight: within(
                "resources.cpuWeight",
                asked.cpu_weight.unwrap_or(default.cpu_weight),
                *jail::CPU_WEIGHTS.start(),
                most.cpu_weight,
            )?,
            disk_bytes: disk_bytes(asked.disk_bytes, config)?,
        };
        check_env(&request.env)?;
        check_labels(&request.labels)?;
        let idle = EffectiveIdle::default().with(&request.idle);
        check_idle(&idle)?;
        let ttl_ms = request.ttl_ms.unwrap_or(0);
        check_ttl(ttl_ms)?;
        check_network(&request.network)?;
        Ok(Self {
            image: request.image.unwrap_or_else(|| config.default_image.clone()),
            resources,
            network: request.network,
            network_revision: 0,
            env: request.env,
            labels: request.labels,
            on_start: check_command("onStart", request.on_start)?,
            services: check_services(request.services)?,
            idle,
            ttl_ms,
        })
    }

    /// Names of the fields that differ, as they are written on the wire.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("image", self.image != other.image),
            ("resources", self.resources != other.resources),
            ("network", self.network != other.network),
            ("env", self.env != other.env),
            ("labels", self.labels != other.labels),
            ("onStart", self.on_start != other.on_start),
            ("services", self.services != other.services),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }

    /// The limits for the jail.
    pub(crate) fn limits(&self) -> Limits {
        let EffectiveResources { memory_bytes, pids, cpu_millis, cpu_weight, disk_bytes } =
            self.resources;
        Limits { memory_bytes, pids, cpu_millis, cpu_weight, disk_bytes }
    }
}

/// The disk limit; none where the node has no limited volumes.
///
/// # Errors
/// Also for a limit that was asked for and could not be held.
fn disk_bytes(asked: Option<u64>, config: &EngineConfig) -> Result<Option<u64>, EngineError> {
    const FIELD: &str = "resources.diskBytes";
    match (&config.volumes, asked) {
        (Volumes::Plain(why), Some(_)) => {
            Err(error::invalid(FIELD, &format!("this node cannot limit {FIELD}: {why}")))
        }
        (Volumes::Plain(_), None) => Ok(None),
        (Volumes::Limited, asked) => {
            let most = config.max_limits.disk_bytes.unwrap_or(u64::MAX);
            let bytes = asked.or(config.default_limits.disk_bytes).unwrap_or(most);
            within(FIELD, bytes, MIN_DISK_BYTES, most).map(Some)
        }
    }
}

/// Refuses a policy that is too long, and rules that would allow nothing.
///
/// # Errors
/// `VALIDATION_FAILED` naming the field.
pub(crate) fn check_network(policy: &NetworkPolicy) -> Result<(), EngineError> {
    const FIELD: &str = "network.allow";
    let NetworkPolicy::Listed(list) = policy else { return Ok(()) };
    if list.allow.len() > NETWORK_RULES {
        let message = format!("the allow-list has more than {NETWORK_RULES} rules");
        return Err(error::invalid(FIELD, &message));
    }
    for rule in &list.allow {
        let refuse = |why: &str| Err(error::invalid(FIELD, &format!("{rule} {why}")));
        if rule.port == Some(MAIL) {
            return refuse("is refused whatever the policy: no sandbox sends mail by itself");
        }
        if let Some(range) = network::range(rule)
            && let Some(reason) = jail::why_out_of_reach(&range)
        {
            return refuse(&format!("is out of reach of every sandbox: {reason}"));
        }
    }
    Ok(())
}

/// What a creation asked about the life of its sandbox. Only that is compared with what an existing
/// one is: these settings change all the time, and a caller who says nothing means nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    idle: IdleSettings,
    ttl_ms: Option<u64>,
}

impl Rest {
    pub(crate) fn asked(request: &CreateSandbox) -> Self {
        Self { idle: request.idle, ttl_ms: request.ttl_ms }
    }

    /// As [`Settings::differences`].
    pub(crate) fn differences(&self, settings: &Settings) -> Vec<&'static str> {
        [
            ("idle", settings.idle.with(&self.idle) != settings.idle),
            ("ttlMs", self.ttl_ms.is_some_and(|asked| asked != settings.ttl_ms)),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }
}

fn within<T>(field: &str, value: T, least: T, most: T) -> Result<T, EngineError>
where
    T: PartialOrd + Copy + std::fmt::Display + Into<u64>,
{
    if least <= value && value <= most {
        return Ok(value);
    }
    Err(error::invalid(field, &format!("{field} is {value}; this node allows {least} to {most}"))
        .with("minimum", least.into())
        .with("maximum", most.into()))
}

/// Refuses services of which one would stand in another's way.
pub(crate) fn check_services(services: Vec<Service>) -> Result<Vec<Service>, EngineError> {
    const FIELD: &str = "services";
    if services.len() > SERVICES {
        let message = format!("a sandbox has at most {SERVICES} services");
        return Err(error::invalid(FIELD, &message));
    }
    for (index, service) in services.iter().enumerate() {
        let name = &service.name;
        let refuse = |why: &str| Err(error::invalid(FIELD, &format!("the service {name} {why}")));
        if services[..index].iter().any(|other| other.name == *name) {
            return refuse("is there twice");
        }
        if service.port == Some(0) {
            return refuse("has the port 0, on which nothing listens");
        }
        if check_command(FIELD, Some(service.command.clone()))?.is_none() {
            return refuse("has no command");
        }
    }
    Ok(services)
}

/// An empty text is no command.
pub(crate) fn check_command(
    field: &str,
    command: Option<Command>,
) -> Result<Option<Command>, EngineError> {
    let command = command.filter(|command| *command != Command::Shell(String::new()));
    let texts = match &command {
        None => &[][..],
        Some(Command::Shell(text)) => std::slice::from_ref(text),
        Some(Command::Program(words)) if words.first().is_none_or(String::is_empty) => {
            return Err(error::invalid(field, &format!("{field} has no program")));
        }
        Some(Command::Program(words)) => words,
    };
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > COMMAND_BYTES || texts.iter().any(|text| text.contains('\0')) {
        let message = format!("{field} has a command of more than {COMMAND_BYTES} bytes, or a NUL");
        return Err(error::invalid(field, &message));
    }
    Ok(command)
}

/// Times may be 0, which is never, where that makes sense.
pub(crate) fn check_idle(idle: &EffectiveIdle) -> Result<(), EngineError> {
    within("idle.sleepAfterMs", idle.sleep_after_ms, LEAST_MS, MOST_MS)?;
    for (field, value) in
        [("idle.stopAfterMs", idle.stop_after_ms), ("idle.destroyAfterMs", idle.destroy_after_ms)]
    {
        if value != 0 {
            within(field, value, LEAST_MS, MOST_MS)?;
        }
    }
    Ok(())
}

pub(crate) fn check_ttl(ttl_ms: u64) -> Result<(), EngineError> {
    if ttl_ms != 0 {
        within("ttlMs", ttl_ms, LEAST_MS, MOST_MS)?;
    }
    Ok(())
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if env.len() > ENV_VARS {
        return Err(error::invalid("env", &format!("env has more than {ENV_VARS} variables")));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = "env has a variable whose name is empty or holds '=' or NUL";
            return Err(error::invalid("env", message));
        }
        if value.contains('\0') {
            return Err(error::invalid("env", &format!("the value of {name} in env holds NUL")));
        }
        if name.len() + value.len() > ENV_VAR_BYTES {
            let message = format!("a variable in env is longer than {ENV_VAR_BYTES} bytes");
            return Err(error::invalid("env", &message));
        }
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_BYTES {
        let message = format!("env has {bytes} bytes and may have {ENV_BYTES}");
        let error = ApiError::new(ErrorCode::PayloadTooLarge, message).with("field", "env");
        return Err(error.with("limit", ENV_BYTES));
    }
    Ok(())
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if labels.len() > LABELS {
        return Err(error::invalid("labels", &format!("more than {LABELS} labels")));
    }
    for (name, value) in labels {
        // A filter is written `name=value`, so a name with '=' could not be asked for.
        if name.is_empty() || name.contains('=') {
            return Err(error::invalid("labels", "a label's name is empty or holds '='"));
        }
        if name.len() > LABEL_BYTES || value.len() > LABEL_BYTES {
            let message = format!("a label's name or value is longer than {LABEL_BYTES} bytes");
            return Err(error::invalid("labels", &message));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use api::{network::AllowList, sandbox::Resources};
    use jail::NodeSpec;

    use super::*;

    pub(crate) fn config(state_dir: &std::path::Path) -> EngineConfig {
        let disk_bytes = Some(1 << 30);
        let limits = Limits {
            memory_bytes: 1 << 30,
            pids: 100,
            cpu_millis: 1000,
            cpu_weight: 100,
            disk_bytes,
        };
        EngineConfig {
            node: NodeSpec {
                state_dir: state_dir.to_owned(),
                name: "test".to_owned(),
                network: None,
            },
            volumes: Volumes::Limited,
            default_image: "default".parse().unwrap(),
            default_limits: limits,
            max_limits: Limits { pids: 200, ..limits },
            max_sandboxes: 10,
            pool: 0,
            reconcile_every: std::time::Duration::from_secs(60),
            kept_memory: 0,
            uid_base: 1 << 20,
            name_servers: Vec::new(),
            proxies: BTreeMap::new(),
            warm: String::new(),
        }
    }

    fn settings(request: CreateSandbox) -> Result<Settings, EngineError> {
        Settings::of(request, &config("/".as_ref()))
    }

    #[test]
    fn records_of_before_there_were_weights_have_the_usual_one() {
        let old = serde_json::json!({"memoryBytes": 1, "pids": 1, "cpuMillis": 1});
        let resources: EffectiveResources = serde_json::from_value(old).unwrap();
        assert_eq!(resources.cpu_weight, jail::CPU_WEIGHT);
    }

    #[test]
    fn absent_values_are_the_nodes() {
        let settings = settings(CreateSandbox::default()).unwrap();
        assert_eq!(settings.image, "default".parse().unwrap());
        assert_eq!(settings.limits(), config("/".as_ref()).default_limits);
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let asking = |pids| CreateSandbox {
            resources: Resources { pids: Some(pids), ..Resources::default() },
            ..CreateSandbox::default()
        };
        for good in [8, 200] {
            assert_eq!(settings(asking(good)).unwrap().resources.pids, good);
        }
        for bad in [0, 7, 201, u32::MAX] {
            let error = settings(asking(bad)).unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed);
            assert_eq!(error.details["field"], "resources.pids");
        }
    }

    #[test]
    fn a_disk_limit_is_kept_or_refused() {
        let asking = |disk_bytes| CreateSandbox {
            resources: Resources { disk_bytes, ..Resources::default() },
            ..CreateSandbox::default()
        };
        for (asked, expected) in [(None, 1 << 30), (Some(16 << 20), 16 << 20)] {
            let settings = settings(asking(asked)).unwrap();
            assert_eq!(settings.resources.disk_bytes, Some(expected));
        }
        for bad in [0, (16 << 20) - 1, (1 << 30) + 1] {
            let error = settings(asking(Some(bad))).unwrap_err();
            assert_eq!(error.details["field"], "resources.diskBytes");
        }
        let plain =
            EngineConfig { volumes: Volumes::Plain("no btrfs".to_owned()), ..config("/".as_ref()) };
        assert_eq!(Settings::of(asking(None), &plain).unwrap().resources.disk_bytes, None);
        let error = Settings::of(asking(Some(1 << 30)), &plain).unwrap_err();
        assert!(error.message.contains("no btrfs"), "{}", error.message);
    }

    #[test]
    fn env_and_labels_are_bounded() {
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let env = |env| settings(CreateSandbox { env, ..CreateSandbox::default() });
        let labels = |labels| settings(CreateSandbox { labels, ..CreateSandbox::default() });

        assert!(env(pair("A", &"x".repeat(ENV_VAR_BYTES - 1))).is_ok());
        assert!(env(pair("A", &"x".repeat(ENV_VAR_BYTES))).is_err());
        assert!(labels(pair("a", &"x".repeat(LABEL_BYTES))).is_ok());
        assert!(labels(pair("a", &"x".repeat(LABEL_BYTES + 1))).is_err());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
            assert!(env(pair(name, value)).is_err(), "{name:?}={value:?}");
        }
        for name in ["", "a=b"] {
            assert!(labels(pair(name, "x")).is_err(), "{name:?}");
        }
        let many = |count: usize| (0..count).map(|n| (format!("n{n}"), String::new())).collect();
        assert!(env(many(ENV_VARS)).is_ok() && labels(many(LABELS)).is_ok());
        assert!(env(many(ENV_VARS + 1)).is_err() && labels(many(LABELS + 1)).is_err());
        let large = |last: usize| {
            let value = |number| "x".repeat(if number < 31 { ENV_BYTES / 32 } else { last } - 3);
            (10..42).map(|number| (format!("n{number}"), value(number - 10))).collect()
        };
        assert!(env(large(ENV_BYTES / 32)).is_ok());
        let error = env(large(ENV_BYTES / 32 + 1)).unwrap_err();
        assert_eq!(
            (error.code, &error.details["field"]),
            (ErrorCode::PayloadTooLarge, &"env".into())
        );
    }

    #[test]
    fn times_hold_at_their_edges() {
        let idle = |sleep_after_ms| IdleSettings { sleep_after_ms, ..IdleSettings::default() };
        let with = |idle| settings(CreateSandbox { idle, ..CreateSandbox::default() });
        assert_eq!(with(idle(None)).unwrap().idle, EffectiveIdle::default());
        for good in [LEAST_MS, MOST_MS] {
            assert_eq!(with(idle(Some(good))).unwrap().idle.sleep_after_ms, good);
        }
        for bad in [0, LEAST_MS - 1, MOST_MS + 1] {
            assert_eq!(with(idle(Some(bad))).unwrap_err().details["field"], "idle.sleepAfterMs");
        }
        let never = IdleSettings { stop_after_ms: Some(0), ..IdleSettings::default() };
        assert_eq!(with(never).unwrap().idle.stop_after_ms, 0);
        let ttl = |ttl_ms| settings(CreateSandbox { ttl_ms, ..CreateSandbox::default() });
        assert_eq!(ttl(Some(LEAST_MS)).unwrap().ttl_ms, LEAST_MS);
        assert!(ttl(Some(LEAST_MS - 1)).is_err() && ttl(Some(MOST_MS + 1)).is_err());
    }

    #[test]
    fn allow_lists_are_bounded_and_allow_something() {
        let network = |rules: &[&str]| {
            let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            let network = NetworkPolicy::Listed(AllowList { allow });
            settings(CreateSandbox { network, ..CreateSandbox::default() })
        };
        assert!(network(&[]).is_ok());
        assert!(network(&["0.0.0.0/0", "8.0.0.0/6", "a.example:443"]).is_ok());
        assert!(network(&["a.example"; NETWORK_RULES]).is_ok());
        assert!(network(&["a.example"; NETWORK_RULES + 1]).is_err());
        for bad in ["a.example:25", "10.0.0.0/8", "192.168.1.1:80", "169.254.169.254"] {
            let error = network(&[bad]).unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed);
            assert_eq!(error.details["field"], "network.allow");
            assert!(error.message.starts_with(bad), "{}", error.message);
        }
    }

    #[test]
    fn differences_are_named() {
        let one = settings(CreateSandbox::default()).unwrap();
        let mut other = one.clone();
        assert!(one.differences(&other).is_empty());
        other.labels.insert("a".to_owned(), "b".to_owned());
        other.image = "host".parse().unwrap();
        assert_eq!(one.differences(&other), ["image", "labels"]);
    }
}
