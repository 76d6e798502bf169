//! Random kills of everything, under mixed load: no acknowledged write is lost, no command runs twice,
//! and nothing is left behind.
//!
//! `KILLS` makes it longer (`scripts/test-faults kills`), `KILLS_SEED` another one.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

mod load;

use std::{fs, os::fd::AsFd, sync::Arc, time::Duration};

use testkit::Server;

use self::load::Load;
use crate::failpoints::story::expect_agreement;

/// Kills of one run unless `KILLS` says otherwise.
const KILLS: u64 = 120;

/// Kills between two looks whether everything is as it was acknowledged.
const KILLS_PER_LOOK: u64 = 40;

/// Sandboxes with load.
const SANDBOXES: usize = 3;

/// Between two kills: as long as some requests take, so that kills meet every part of them.
const BETWEEN: Duration = Duration::from_millis(25);

/// `SplitMix64`, as in the simulation: the same victims in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.below(list.len())])
    }
}

/// A process of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Launcher,
    Agent,
    Command,
}

/// The processes of a server but its daemon.
fn processes(server: &Server) -> Vec<(Kind, i32)> {
    let group = format!("/sandbar-{}/", server.slot().name());
    let state = server.state_dir().to_string_lossy().into_owned();
    let kind = |pid: i32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if line.contains("__launcher") && line.contains(&state) {
            return Some(Kind::Launcher);
        }
        let is_inside = String::from_utf8_lossy(&read("cgroup")).contains(&group);
        let kind = if line.contains("__agent") { Kind::Agent } else { Kind::Command };
        is_inside.then_some(kind)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((kind(pid)?, pid))).collect()
}

/// Kills a process, which may have ended by itself.
fn kill(pid: i32) {
    if let Ok(pidfd) = sys::pidfd::open(pid) {
        sys::signal::send(pidfd.as_fd(), sys::signal::SIGKILL).unwrap_or_default();
    }
}

/// Kills something. Commands and launchers more often than agents, and agents than the daemon: what they
/// do ends sooner.
fn kill_something(server: &mut Server, dice: &mut Dice) -> &'static str {
    let all = processes(server);
    let of = |wanted: Kind| -> Vec<i32> {
        all.iter().filter(|(kind, _)| *kind == wanted).map(|(_, pid)| *pid).collect()
    };
    let (what, victim) = match dice.below(10) {
        0 => ("daemon", None),
        1..4 => ("launcher", dice.one_of(&of(Kind::Launcher))),
        4..6 => ("agent", dice.one_of(&of(Kind::Agent))),
        _ => ("command", dice.one_of(&of(Kind::Command))),
    };
    if what == "daemon" {
        server.kill();
        server.restart();
    } else if let Some(pid) = victim {
        kill(pid);
    } else {
        return "nobody";
    }
    what
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_under_load_lose_nothing_leave_nothing_and_run_nothing_twice() {
    let mut server = Server::start_at_one_address(env!("CARGO_BIN_EXE_sandbar"));
    let before = server.look();
    let mut dice = Dice(from_environment("KILLS_SEED", 1));
    let loads: Vec<_> =
        (0..SANDBOXES).map(|number| Arc::new(Load::new(&server, &format!("s{number}")))).collect();
    let kills = from_environment("KILLS", KILLS);
    let (mut done, mut victims) = (0, std::collections::BTreeMap::<_, u64>::new());
    while done < kills {
        let running: Vec<_> =
            loads.iter().map(|load| tokio::spawn(Arc::clone(load).run())).collect();
        for _ in 0..KILLS_PER_LOOK {
            // Any moment is as good as any other.
            tokio::time::sleep(BETWEEN).await;
            let victim = kill_something(&mut server, &mut dice);
            *victims.entry(victim).or_default() += 1;
            done += u64::from(victim != "nobody");
        }
        loads.iter().for_each(|load| load.stop());
        for load in running {
            load.await.unwrap();
        }
        for load in &loads {
            load.check(&server).await;
        }
        expect_agreement(&server, &format!("{done} kills")).await;
    }
    let totals = loads.iter().map(|load| load.acknowledged()).collect::<Vec<_>>();
    println!("killed {victims:?}; acknowledged (writes, commands, checkpoints) {totals:?}");
    for load in &loads {
        load.destroy(&server).await;
    }
    server.expect_again(&before);
}
