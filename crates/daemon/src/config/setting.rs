//! The list of settings: every name an operator can write.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted name, as in the file: `limits.default.memory`.
    pub name: &'static str,
    /// What it decides, in one line, for help texts.
    pub about: &'static str,
}

impl Setting {
    /// The environment variable that sets it: `SANDBAR_LIMITS_DEFAULT_MEMORY`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("SANDBAR_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// All settings, in the order they are printed.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "address and port of the API"),
    setting("allowed_hosts", "further host names the API answers to, beside the loopback names"),
    setting("allowed_origins", "web pages that may call the API from a browser, by their origins"),
    setting("key", "the API key of this machine's clients, instead of a generated one"),
    setting("key_file", "a file with that key"),
    setting("max_requests_per_key", "requests at once with one key that has a prefix"),
    setting("preview.listen", "address and port of previews, instead of the API's"),
    setting("preview.url", "scheme and domain of the previews' URLs"),
    setting("preview.tls_cert", "a PEM file with the previews' certificate chain"),
    setting("preview.tls_key", "a PEM file with the key of that certificate"),
    setting("preview.trusted_proxies", "proxies whose X-Forwarded-For names the visitor"),
    setting("state_dir", "directory of everything the node keeps"),
    setting("name", "short name that sets this node's kernel objects apart"),
    setting("default_image", "image of sandboxes that name none"),
    setting("max_sandboxes", "sandboxes that may exist at once"),
    setting("kept_memory", "memory of the machine that new sandboxes leave alone"),
    setting("uid_base", "first host user id of the sandboxes' ranges"),
    setting("user", "account or id that the server runs as, once root has started it"),
    setting("launchers", "processes that create sandboxes, so many at a time"),
    setting("pool", "sandboxes that are made ahead"),
    setting("reconcile_seconds", "seconds between two looks for what is left behind"),
    setting("network.subnet", "address range of the sandboxes, or none"),
    setting(
        "network.name_servers",
        "DNS servers asked for sandboxes, instead of the machine's own",
    ),
    setting("limits.default.memory", "memory of a sandbox that asks for none"),
    setting("limits.default.pids", "processes and threads of a sandbox that asks for none"),
    setting("limits.default.cpus", "CPUs of a sandbox that asks for none"),
    setting(
        "limits.default.cpu_weight",
        "share of the processors, beside the others, of a sandbox that asks for none",
    ),
    setting("limits.default.disk", "bytes on disk of a sandbox that asks for none"),
    setting("limits.max.memory", "the most memory a sandbox may ask for"),
    setting("limits.max.pids", "the most processes and threads a sandbox may ask for"),
    setting("limits.max.cpus", "the most CPUs a sandbox may ask for"),
    setting(
        "limits.max.cpu_weight",
        "the largest share of the processors, beside the others, that a sandbox may ask for",
    ),
    setting("limits.max.disk", "the most bytes on disk a sandbox may ask for"),
    setting("log.level", "what is logged"),
    setting("log.format", "how it is logged: text or json"),
];

const fn setting(name: &'static str, about: &'static str) -> Setting {
    Setting { name, about }
}

/// True for `limits`, `limits.default`, ...: a table of the file.
pub(super) fn is_section(name: &str) -> bool {
    SETTINGS
        .iter()
        .any(|setting| setting.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The setting that was probably meant by `name` (dots and underscores count as equal): at most two
/// letters off, or the right last word in the wrong section.
pub(super) fn nearest(name: &str) -> Option<&'static Setting> {
    let plain = |text: &str| text.replace(['.', '-'], "_");
    let wanted = plain(name);
    let close = SETTINGS
        .iter()
        .map(|setting| (distance(&plain(setting.name), &wanted), setting))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, setting)| *distance <= 2.min(setting.name.len() / 3));
    if let Some((_, setting)) = close {
        return Some(setting);
    }
    let mut same_end =
        SETTINGS.iter().filter(|s| s.name.rsplit('.').next() == name.rsplit('.').next());
    match (same_end.next(), same_end.next()) {
        (Some(setting), None) => Some(setting),
        _ => None,
    }
}

/// Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let one_more = table[i - 1][j].min(table[i][j - 1]) + 1;
                    let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let swapped = if is_swap { table[i - 2][j - 2] + 1 } else { usize::MAX };
                    replaced.min(one_more).min(swapped)
                }
            };
        }
    }
    table[a.len()][b.len()]
}
