//! The ladder: what becomes of a sandbox that nobody uses, and when. Pure.
//!
//! ```text
//! in use ─▶ idle ─sleepAfter─▶ frozen ─soon─▶ memory pushed out
//!                                │─stopAfter─▶ stopped ─destroyAfter─▶ gone
//! ```
//!
//! What a use is, is written in `api::idle`. Times are milliseconds of the node's [`Clock`]; whoever
//! asks says what time it is. The start of the daemon counts as the end of a use, because nobody
//! could use anything before it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use api::idle::{EffectiveIdle, NextRung, OnIdle, Rung, RungReason};
use tokio::sync::Notify;

use crate::{node::now_ms, state::State};

pub(crate) mod sweep;

/// Milliseconds frozen after which memory is pushed out: whoever comes back within them finds
/// everything where it was. Less for a sandbox that is frozen sooner than that.
const RECLAIM_AFTER_MS: u64 = 10_000;

/// What the ladder needs to know of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resting {
    /// Requests under way.
    pub(crate) users: usize,
    /// When the last of them ended, or the sandbox began to run.
    pub(crate) used_at_ms: i64,
    /// Since when it is in its state.
    pub(crate) since_ms: i64,
    /// Its memory has been pushed out since it was frozen.
    pub(crate) is_reclaimed: bool,
    /// Before this, its time to live does not end again: when it did, that could not be recorded.
    pub(crate) spared_until_ms: i64,
}

/// The next rung of a sandbox in `state`. None: nothing will happen as long as nothing changes.
pub(crate) fn next(
    state: &State,
    resting: Resting,
    idle: &EffectiveIdle,
    dies_at_ms: Option<i64>,
) -> Option<NextRung> {
    if state.is_passing() || matches!(state, State::Doomed(_) | State::Gone(_)) {
        return None;
    }
    let idle = idle_rung(state, resting, idle).map(|(rung, at_ms)| NextRung {
        rung,
        at_ms,
        reason: RungReason::Idle,
    });
    let ttl = dies_at_ms.map(|at_ms| NextRung {
        rung: Rung::Destroy,
        at_ms: at_ms.max(resting.spared_until_ms),
        reason: RungReason::Ttl,
    });
    idle.into_iter().chain(ttl).min_by_key(|next| next.at_ms)
}

fn idle_rung(state: &State, resting: Resting, idle: &EffectiveIdle) -> Option<(Rung, i64)> {
    let after = |from: i64, ms: u64| from.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
    // 0 is never.
    let unless_never = |rung, from, ms| (ms > 0).then(|| (rung, after(from, ms)));
    match state {
        State::Frozen(_) if !resting.is_reclaimed => {
            let soon = RECLAIM_AFTER_MS.min(idle.sleep_after_ms);
            Some((Rung::Reclaim, after(resting.since_ms, soon)))
        }
        _ if idle.keep_alive => None,
        State::Running(_) if resting.users == 0 => {
            let rung = match idle.on_idle {
                OnIdle::Freeze => Rung::Freeze,
                OnIdle::Stop => Rung::Stop,
                OnIdle::Destroy => Rung::Destroy,
            };
            Some((rung, after(resting.used_at_ms, idle.sleep_after_ms)))
        }
        State::Frozen(_) => unless_never(Rung::Stop, resting.since_ms, idle.stop_after_ms),
        State::Stopped | State::Failed(_) => {
            unless_never(Rung::Destroy, resting.since_ms, idle.destroy_after_ms)
        }
        _ => None,
    }
}

/// Milliseconds since 1970-01-01 UTC that never go back and never jump: the machine's clock as it was
/// at the start, and what has passed since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_ms: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self::starting_at(now_ms())
    }

    fn starting_at(start_ms: i64) -> Self {
        Self { start: Instant::now(), start_ms }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start_ms.saturating_add(passed)
    }
}

/// Wakes whoever climbs the ladders, when a rung comes sooner than it thinks.
#[derive(Debug)]
pub(crate) struct Alarm {
    pub(crate) clock: Clock,
    /// When it wakes by itself. While it looks, it does not know yet, and everybody wakes it.
    wakes_at_ms: AtomicI64,
    early: Notify,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self::of(Clock::start())
    }

    fn of(clock: Clock) -> Self {
        Self { clock, wakes_at_ms: AtomicI64::new(i64::MAX), early: Notify::new() }
    }

    /// One of a node that was started `ms` before the machine's clock was set back by as much.
    #[cfg(test)]
    pub(crate) fn ahead(ms: i64) -> Self {
        Self::of(Clock::starting_at(now_ms() + ms))
    }

    /// Something is to be done at this time. Cheap: asked at the end of every request.
    pub(crate) fn hint(&self, at_ms: i64) {
        if at_ms < self.wakes_at_ms.load(Ordering::SeqCst) {
            self.early.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{AgentIdentity, Operation};

    const USED: i64 = 1_000;
    const SINCE: i64 = 5_000;

    fn agent() -> AgentIdentity {
        AgentIdentity { pid: 1, start_time: 2, boot_id: "b".to_owned() }
    }

    fn resting() -> Resting {
        Resting {
            users: 0,
            used_at_ms: USED,
            since_ms: SINCE,
            is_reclaimed: true,
            spared_until_ms: 0,
        }
    }

    fn idle() -> EffectiveIdle {
        EffectiveIdle {
            sleep_after_ms: 100,
            stop_after_ms: 200,
            destroy_after_ms: 300,
            ..EffectiveIdle::default()
        }
    }

    fn rung(state: &State, resting: Resting, idle: &EffectiveIdle) -> Option<(Rung, i64)> {
        next(state, resting, idle, None).map(|next| (next.rung, next.at_ms))
    }

    #[test]
    fn one_rung_follows_the_other() {
        let fresh = Resting { is_reclaimed: false, ..resting() };
        let table = [
            (State::Running(agent()), fresh, Some((Rung::Freeze, USED + 100))),
            (State::Frozen(agent()), fresh, Some((Rung::Reclaim, SINCE + 100))),
            (State::Frozen(agent()), resting(), Some((Rung::Stop, SINCE + 200))),
            (State::Stopped, resting(), Some((Rung::Destroy, SINCE + 300))),
            (State::Gone(None), resting(), None),
        ];
        for (state, resting, expected) in table {
            assert_eq!(rung(&state, resting, &idle()), expected, "{state:?}");
        }
    }

    #[test]
    fn what_is_used_or_passes_rests_on_no_rung() {
        let used = Resting { users: 1, ..resting() };
        assert_eq!(rung(&State::Running(agent()), used, &idle()), None);
        for operation in [Operation::Freeze, Operation::Stop, Operation::Destroy, Operation::Hold] {
            let passing = operation.passing(&State::Running(agent()));
            assert_eq!(rung(&passing, resting(), &idle()), None, "{operation:?}");
        }
    }

    #[test]
    fn what_happens_first_is_the_callers_to_say() {
        for (on_idle, first) in [
            (OnIdle::Freeze, Rung::Freeze),
            (OnIdle::Stop, Rung::Stop),
            (OnIdle::Destroy, Rung::Destroy),
        ] {
            let idle = EffectiveIdle { on_idle, ..idle() };
            let running = State::Running(agent());
            assert_eq!(rung(&running, resting(), &idle), Some((first, USED + 100)));
        }
    }

    #[test]
    fn nothing_happens_to_what_is_kept_alive_but_that_its_frozen_memory_goes() {
        let kept = EffectiveIdle { keep_alive: true, ..idle() };
        for state in [State::Running(agent()), State::Frozen(agent()), State::Stopped] {
            assert_eq!(rung(&state, resting(), &kept), None, "{state:?}");
        }
        let fresh = Resting { is_reclaimed: false, ..resting() };
        let frozen = rung(&State::Frozen(agent()), fresh, &kept);
        assert_eq!(frozen, Some((Rung::Reclaim, SINCE + 100)));
    }

    #[test]
    fn zero_is_never() {
        let never = EffectiveIdle { stop_after_ms: 0, destroy_after_ms: 0, ..idle() };
        assert_eq!(rung(&State::Frozen(agent()), resting(), &never), None);
        assert_eq!(rung(&State::Stopped, resting(), &never), None);
    }

    #[test]
    fn a_time_to_live_ends_what_is_used_and_what_is_kept_alive() {
        let kept = EffectiveIdle { keep_alive: true, ..idle() };
        let used = Resting { users: 1, ..resting() };
        let dies = next(&State::Running(agent()), used, &kept, Some(9_000)).unwrap();
        assert_eq!((dies.rung, dies.at_ms, dies.reason), (Rung::Destroy, 9_000, RungReason::Ttl));
        let spared = Resting { spared_until_ms: 10_000, ..used };
        let dies = next(&State::Running(agent()), spared, &kept, Some(9_000)).unwrap();
        assert_eq!(dies.at_ms, 10_000);
        let sooner = next(&State::Running(agent()), resting(), &idle(), Some(9_000)).unwrap();
        assert_eq!((sooner.rung, sooner.reason), (Rung::Freeze, RungReason::Idle));
    }
}
