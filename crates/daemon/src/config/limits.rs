//! What a sandbox gets, and the most it may ask for.

use std::{fs, thread};

use super::{
    reader::Reader,
    value::{self, show_cpus, show_size},
};

/// Enough for pandas with a data set or a TypeScript build; a page not touched costs nothing.
const DEFAULT_MEMORY: u64 = 2 << 30;
/// Enough for a parallel build; a fork bomb ends here without harm to the host.
const DEFAULT_PIDS: u32 = 1024;
/// One for the program and one for what it starts. A ceiling, not a share: idle CPUs cost nothing.
const DEFAULT_CPU_MILLIS: u32 = 2000;
/// Every sandbox is worth the same where nobody says otherwise.
const DEFAULT_CPU_WEIGHT: u32 = jail::CPU_WEIGHT;
/// Ten of the others: whoever may make sandboxes could have as much by making ten.
const DEFAULT_MAX_CPU_WEIGHT: u32 = 10 * DEFAULT_CPU_WEIGHT;
/// A large project with its dependencies. Only what is written is taken from the disk.
const DEFAULT_DISK: u64 = 8 << 30;
/// More than one sandbox should need, less than most disks have.
const DEFAULT_MAX_DISK: u64 = 64 << 30;
/// A quarter of the kernel's usual `pid_max` of one machine.
const DEFAULT_MAX_PIDS: u32 = 8192;

/// Below this the agent's own children do not start.
const LEAST_MEMORY: u64 = 16 << 20;
const LEAST_PIDS: u32 = 8;
/// 1 ms in the 100 ms period of the CPU controller: the least the kernel takes.
const LEAST_CPU_MILLIS: u32 = 10;
/// Below this the file system's own bookkeeping does not fit.
const LEAST_DISK: u64 = 16 << 20;
const MOST_DISK: u64 = 1 << 60;
const MOST_MEMORY: u64 = 1 << 50;
const MOST_PIDS: u32 = 1 << 22;
const MOST_CPU_MILLIS: u32 = 4096 * 1000;

/// What a sandbox gets, and the most it may ask for.
#[derive(Debug, Clone, Copy)]
pub struct LimitsConfig {
    /// For sandboxes that ask for none.
    pub default: jail::Limits,
    /// A request over it is refused.
    pub max: jail::Limits,
}

impl LimitsConfig {
    /// The ceilings come first: a default of the product never exceeds the ceiling in force, and a
    /// default the operator wrote must not. Unless written, a ceiling is what the machine has, but
    /// never so low that the product's own defaults would not fit a small machine.
    pub(super) fn read(reader: &mut Reader) -> Self {
        let machine = jail::Limits {
            memory_bytes: machine_memory().max(DEFAULT_MEMORY),
            pids: DEFAULT_MAX_PIDS,
            cpu_millis: machine_cpus().max(DEFAULT_CPU_MILLIS),
            cpu_weight: DEFAULT_MAX_CPU_WEIGHT,
            disk_bytes: Some(DEFAULT_MAX_DISK),
        };
        let max = read(reader, MAX, machine);
        let product = jail::Limits {
            memory_bytes: DEFAULT_MEMORY.min(max.memory_bytes),
            pids: DEFAULT_PIDS.min(max.pids),
            cpu_millis: DEFAULT_CPU_MILLIS.min(max.cpu_millis),
            cpu_weight: DEFAULT_CPU_WEIGHT.min(max.cpu_weight),
            disk_bytes: max.disk_bytes.map(|most| DEFAULT_DISK.min(most)),
        };
        let default = read(reader, DEFAULT, product);
        for (name, ceiling, is_over) in [
            (DEFAULT[0], MAX[0], default.memory_bytes > max.memory_bytes),
            (DEFAULT[1], MAX[1], default.pids > max.pids),
            (DEFAULT[2], MAX[2], default.cpu_millis > max.cpu_millis),
            (DEFAULT[3], MAX[3], default.cpu_weight > max.cpu_weight),
            (DEFAULT[4], MAX[4], default.disk_bytes > max.disk_bytes),
        ] {
            if is_over {
                reader
                    .fault(name, format!("{name} is over {ceiling}; lower it or raise {ceiling}"));
            }
        }
        Self { default, max }
    }
}

const DEFAULT: [&str; 5] = [
    "limits.default.memory",
    "limits.default.pids",
    "limits.default.cpus",
    "limits.default.cpu_weight",
    "limits.default.disk",
];
const MAX: [&str; 5] = [
    "limits.max.memory",
    "limits.max.pids",
    "limits.max.cpus",
    "limits.max.cpu_weight",
    "limits.max.disk",
];

fn read(reader: &mut Reader, names: [&'static str; 5], otherwise: jail::Limits) -> jail::Limits {
    let [memory, pids, cpus, weight, disk] = names;
    jail::Limits {
        memory_bytes: reader.read(
            memory,
            otherwise.memory_bytes,
            |raw| value::size(raw, &(LEAST_MEMORY..=MOST_MEMORY)),
            show_size,
        ),
        pids: reader.read(
            pids,
            otherwise.pids,
            |raw| value::number(raw, &(LEAST_PIDS..=MOST_PIDS)),
            u32::to_string,
        ),
        cpu_millis: reader.read(
            cpus,
            otherwise.cpu_millis,
            |raw| value::cpus(raw, &(LEAST_CPU_MILLIS..=MOST_CPU_MILLIS)),
            show_cpus,
        ),
        cpu_weight: reader.read(
            weight,
            otherwise.cpu_weight,
            |raw| value::number(raw, &jail::CPU_WEIGHTS),
            u32::to_string,
        ),
        disk_bytes: Some(reader.read(
            disk,
            otherwise.disk_bytes.unwrap_or(DEFAULT_DISK),
            |raw| value::size(raw, &(LEAST_DISK..=MOST_DISK)),
            show_size,
        )),
    }
}

/// `MemTotal` of /proc/meminfo (proc(5)), in whole MiB so that it prints well; where there is none,
/// the default of a sandbox.
fn machine_memory() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .map_or(DEFAULT_MEMORY, |kib| (kib >> 10) << 20)
}

fn machine_cpus() -> u32 {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(1000).min(MOST_CPU_MILLIS)
}
