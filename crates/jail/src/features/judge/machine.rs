//! What else keeps sandboxes apart, or does not: settings of the kernel and properties of the
//! machine that no sandbox needs but its neighbours may.

use super::{Topic, number};
use crate::features::{Feature, facts::Facts};

pub(super) fn page_merging(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "page merging",
        required: false,
        cost: "where the kernel merges equal pages, the time of a write tells what neighbours hold",
        remedy: "echo 2 > /sys/kernel/mm/ksm/run",
    };
    match facts.ksm.as_deref() {
        Some("1") => topic.degraded("KSM is on"),
        Some(_) => topic.present("KSM is off"),
        None => topic.present("the kernel has no KSM"),
    }
}

pub(super) fn links(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "link protections",
        required: false,
        cost: "programs that open files in shared directories such as /tmp can be led astray by links",
        remedy: "sysctl fs.protected_symlinks=1 fs.protected_hardlinks=1 fs.protected_fifos=1 fs.protected_regular=2",
    };
    const ALL: [&str; 4] = [
        "fs/protected_symlinks",
        "fs/protected_hardlinks",
        "fs/protected_fifos",
        "fs/protected_regular",
    ];
    let off = ALL.into_iter().filter(|name| number(facts, name).unwrap_or(0) == 0);
    let off: Vec<String> = off.map(|name| name.replace('/', ".")).collect();
    if off.is_empty() {
        topic.present("on")
    } else {
        topic.degraded(format!("off: {}", off.join(", ")))
    }
}

pub(super) fn pointers(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "kernel addresses",
        required: false,
        cost: "kernel addresses help whoever has found a hole in the kernel",
        remedy: "sysctl kernel.kptr_restrict=1",
    };
    match number(facts, "kernel/kptr_restrict") {
        Some(0) | None => topic.degraded("shown to root"),
        Some(level) => topic.present(format!("hidden (kptr_restrict {level})")),
    }
}

pub(super) fn smt(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "one thread per core",
        required: false,
        cost: "sandboxes that share a core can learn about each other by its caches and timing",
        remedy: "boot with nosmt, if neighbours must not learn anything",
    };
    match facts.smt.as_deref() {
        Some("1") => topic.degraded("SMT is on"),
        Some(_) => topic.present("SMT is off"),
        None => topic.degraded("the kernel does not say"),
    }
}

pub(super) fn cpu(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "CPU weaknesses",
        required: false,
        cost: "speculative execution may show a sandbox what its neighbours or the host hold",
        remedy: "update the firmware and the kernel; boot without mitigations=off",
    };
    if facts.vulnerable.is_empty() {
        topic.present("none that the kernel knows of and does not make up for")
    } else {
        topic.degraded(format!("open: {}", facts.vulnerable.join(", ")))
    }
}

pub(super) fn security_modules(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "security modules",
        required: false,
        cost: "Landlock lets programs in a sandbox lock themselves in further",
        remedy: "boot with lsm= naming landlock; mount -t securityfs none /sys/kernel/security to see the list",
    };
    match &facts.lsm {
        Some(list) if list.split(',').any(|name| name == "landlock") => topic.present(list),
        Some(list) => topic.missing(list),
        None => topic.degraded("unknown: /sys/kernel/security is not mounted"),
    }
}

pub(super) fn clock(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "clock",
        required: false,
        cost: "reading the time takes microseconds and a system call, in every program",
        remedy: "use a machine type with a stable TSC, or kvm-clock",
    };
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
    match facts.clock_source.as_deref() {
        Some(source) if FAST.contains(&source) => topic.present(source),
        Some(source) => topic.degraded(source),
        None => topic.degraded("unknown"),
    }
}
