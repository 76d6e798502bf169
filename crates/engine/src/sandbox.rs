//! A handle to one sandbox: who it is, and where it is in its life. What is done to it is in
//! `create.rs` and `destroy.rs`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    id::SandboxId,
    idle::{Activity, NextRung},
    sandbox::{Sandbox as Description, SandboxState, SandboxUsage},
};
use jail::JailId;
use tokio::sync::{Notify, watch};

use crate::{
    EngineError,
    checkpoint::Checkpoints,
    error,
    idle::{self, Alarm, Resting},
    life::{Life, Rest},
    memory::Kills,
    node::now_ms,
    number::Number,
    port::Ports,
    record::{Files, Origin, SandboxRecord},
    resolver::Asker,
    settings::Settings,
    state::{Admission, AgentIdentity, Operation, State},
};

/// How long anybody waits for somebody else's work on a sandbox: the longest of it (a launch that
/// queued, then a kill) with room to spare.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// One sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) jail: JailId,
    /// Its jail's.
    pub(crate) number: Number,
    pub(crate) slot: u32,
    /// False: the node has no address or no user ids for its slot since its settings were changed. Such
    /// a sandbox is not started; everything else can be done with it.
    pub(crate) has_place: bool,
    /// What it may ask the resolver, and has asked.
    pub(crate) asker: Arc<Asker>,
    /// Its lock is held for a copy of the pointer.
    settings: Mutex<Arc<Settings>>,
    pub(crate) image_digest: String,
    /// As the machine's clock said, for people.
    pub(crate) created_at_ms: i64,
    /// The same by the node's clock, which does not jump.
    born_ms: i64,
    pub(crate) ports: Ports,
    pub(crate) checkpoints: Checkpoints,
    /// What the kernel has killed of it.
    pub(crate) kills: Kills,
    /// Whose files it begins with, when it is new and a fork.
    pub(crate) origin: Option<Origin>,
    /// With the number of their volume. Changed by whoever was admitted.
    files: Mutex<(Files, Number)>,
    /// Its state is assigned by whoever was admitted, see [`crate::state`]. Its lock is never held
    /// across an await and nothing is called under it.
    life: watch::Sender<Life>,
    /// Told when its last user leaves. By `life` everybody who waits for another state would be woken
    /// with each request.
    left: Notify,
    /// Woken when it is to be frozen, stopped or destroyed sooner than was to be expected.
    alarm: Arc<Alarm>,
}

/// One use of a sandbox that runs. While it is held, the sandbox is not frozen.
#[derive(Debug)]
pub(crate) struct InUse {
    sandbox: Arc<Sandbox>,
    /// Whom it uses.
    agent: AgentIdentity,
    /// Idle time begins with its end. Not so for whoever only asks whether there is a use.
    is_use: bool,
}

impl InUse {
    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    pub(crate) fn agent(&self) -> &AgentIdentity {
        &self.agent
    }

    /// The end of one that [`Sandbox::ask_first`] gave, with the answer.
    pub(crate) fn answer(mut self, is_use: bool) {
        self.is_use = is_use;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let sandbox = &self.sandbox;
        let mut is_last = false;
        sandbox.life.send_if_modified(|life| {
            is_last = life.leave(self.is_use, sandbox.alarm.clock.now_ms());
            false
        });
        if is_last {
            sandbox.left.notify_waiters();
        }
        sandbox.hint();
    }
}

impl Sandbox {
    /// The sandbox of a record, with the numbers of its jail and its volume.
    pub(crate) fn new(
        record: SandboxRecord,
        (number, volume): (Number, Number),
        state: State,
        alarm: &Arc<Alarm>,
    ) -> Self {
        let SandboxRecord { id, jail, slot, settings, image_digest, created_at_ms, .. } = record;
        let (files, origin) = (Mutex::new((record.files, volume)), record.origin);
        let life = watch::Sender::new(Life::new(state, alarm.clock.now_ms()));
        let age_ms = now_ms().saturating_sub(created_at_ms).max(0);
        let born_ms = alarm.clock.now_ms().saturating_sub(age_ms);
        let alarm = Arc::clone(alarm);
        let asker = Arc::new(Asker::new(jail, &settings));
        let (ports, checkpoints) = (Ports::default(), Checkpoints::default());
        let settings = Mutex::new(Arc::new(settings));
        Self {
            id,
            jail,
            number,
            slot,
            has_place: true,
            asker,
            settings,
            image_digest,
            created_at_ms,
            born_ms,
            ports,
            checkpoints,
            kills: Kills::default(),
            origin,
            files,
            life,
            left: Notify::new(),
            alarm,
        }
    }

    /// Where its own files are.
    pub(crate) fn files(&self) -> Files {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// The number of their volume.
    pub(crate) fn volume(&self) -> Number {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// They are there now, on the volume of this number: for whoever was admitted.
    pub(crate) fn set_files(&self, files: Files, volume: Number) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = (files, volume);
    }

    /// What it is to be now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives it other settings: for whoever was admitted to change them.
    pub(crate) fn set_settings(&self, settings: Settings) {
        self.asker.set_policy(&settings);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// # Errors
    /// `SANDBOX_FAILED` without a place on the node.
    pub(crate) fn check_place(&self) -> Result<(), EngineError> {
        if self.has_place { Ok(()) } else { Err(error::no_place()) }
    }

    /// Where it is now.
    pub(crate) fn state(&self) -> State {
        self.life.borrow().state.clone()
    }

    /// True while it has processes, frozen ones too.
    pub(crate) fn has_processes(&self) -> bool {
        let life = self.life.borrow();
        life.state.is_running() || life.state.agent().is_some()
    }

    /// False while it is being destroyed: nobody finds it any more.
    pub(crate) fn is_there(&self) -> bool {
        self.public_state().is_some()
    }

    /// Its state as callers see it; none while it is being destroyed.
    pub(crate) fn public_state(&self) -> Option<SandboxState> {
        self.life.borrow().state.public().map(|(state, _failure)| state)
    }

    /// Uses it, if it runs.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InUse> {
        let mut used = None;
        self.life.send_if_modified(|life| {
            used = life.enter().cloned();
            false
        });
        used.map(|agent| InUse { sandbox: Arc::clone(self), agent, is_use: true })
    }

    /// What happens to it by itself next.
    pub(crate) fn next_rung(&self) -> Option<NextRung> {
        let rest = self.rest();
        let life = self.life.borrow();
        idle::next(&life.state, life.resting, &rest.idle, rest.dies_at_ms)
    }

    /// Keeps it as it is for a question to its agent, if a rung is due that depends on what runs in
    /// it by itself.
    pub(crate) fn ask_first(self: &Arc<Self>, now_ms: i64) -> Option<InUse> {
        let rest = self.rest();
        let mut asked = None;
        self.life.send_if_modified(|life| {
            asked = life.ask_first(&rest, now_ms).cloned();
            false
        });
        asked.map(|agent| InUse { sandbox: Arc::clone(self), agent, is_use: false })
    }

    /// As [`Sandbox::begin`] of what is due at this time, if anything is. Returns it with the state
    /// before.
    pub(crate) fn begin_rung(&self, now_ms: i64) -> Option<(NextRung, State)> {
        let rest = self.rest();
        let mut due = None;
        self.life.send_if_modified(|life| {
            due = life.begin_rung(&rest, now_ms);
            due.is_some()
        });
        due
    }

    fn rest(&self) -> Rest {
        let settings = self.settings();
        let ttl_ms = i64::try_from(settings.ttl_ms).unwrap_or(i64::MAX);
        let dies_at_ms = (ttl_ms > 0).then(|| self.born_ms.saturating_add(ttl_ms));
        Rest { idle: settings.idle, dies_at_ms }
    }

    /// Tells whoever climbs the ladders when the next rung comes.
    pub(crate) fn hint(&self) {
        if let Some(next) = self.next_rung() {
            self.alarm.hint(next.at_ms);
        }
    }

    /// Asks for `operation`, and with [`Admission::Begin`] has taken on the work: the state passes
    /// and is the caller's to settle. Returns the state before.
    pub(crate) fn begin(&self, operation: Operation) -> (Admission, State) {
        let mut answer = (Admission::Wait, State::Creating);
        self.life.send_if_modified(|life| {
            answer = life.begin(operation);
            answer.0 == Admission::Begin
        });
        answer
    }

    /// As [`Sandbox::begin`] of a stop, if it is still this agent whose sandbox it is.
    pub(crate) fn begin_end_of(&self, agent: &AgentIdentity) -> bool {
        self.life.send_if_modified(|life| life.begin_end_of(agent))
    }

    /// Assigns a state: for whoever was admitted.
    pub(crate) fn set(&self, state: State) {
        let now_ms = self.alarm.clock.now_ms();
        self.life.send_modify(|life| life.settle(state, now_ms));
        self.hint();
    }

    /// Waits until nobody works on it.
    ///
    /// # Errors
    /// `TIMEOUT` after two minutes.
    pub(crate) async fn settled(&self) -> Result<State, EngineError> {
        let mut receiver = self.life.subscribe();
        let settled = receiver.wait_for(|life| !life.state.is_passing());
        match tokio::time::timeout(SETTLE_TIMEOUT, settled).await {
            Ok(Ok(life)) => Ok(life.state.clone()),
            // The sender is `self`, so the channel cannot have closed.
            Ok(Err(_)) | Err(_) => Err(error::late("waiting for the sandbox", SETTLE_TIMEOUT)),
        }
    }

    /// Waits until nobody uses it, or it does not run.
    pub(crate) async fn unused(&self) {
        let mut receiver = self.life.subscribe();
        loop {
            // Takes part from here on, so who leaves after the look is heard.
            let left = self.left.notified();
            {
                let life = receiver.borrow_and_update();
                if life.resting.users == 0 || !matches!(life.state, State::Running(_)) {
                    return;
                }
            }
            tokio::select! {
                () = left => {}
                // An error means that the sandbox is dropped, which cannot be while `self` is borrowed.
                changed = receiver.changed() => drop(changed),
            }
        }
    }

    /// Waits until the agent is no longer its agent. A passing state may still go back to it.
    pub(crate) async fn outlived(&self, agent: &AgentIdentity) {
        let mut receiver = self.life.subscribe();
        let over = |life: &Life| !life.state.is_passing() && life.state.agent() != Some(agent);
        // An error: as above.
        drop(receiver.wait_for(over).await);
    }

    /// The sandbox as callers see it; none while it is being destroyed.
    pub(crate) fn describe(&self, usage: Option<SandboxUsage>) -> Option<Description> {
        let life = self.life.borrow();
        let (state, failure) = life.state.public()?;
        let Resting { users, used_at_ms, .. } = life.resting;
        drop(life);
        let activity =
            Activity { requests: users, last_used_at_ms: used_at_ms, next: self.next_rung() };
        let Settings {
            image,
            resources,
            network,
            network_revision: _,
            env,
            labels,
            on_start,
            services,
            idle,
            ttl_ms,
        } = (*self.settings()).clone();
        let (id, created_at_ms) = (self.id.clone(), self.created_at_ms);
        Some(Description {
            id,
            state,
            failure,
            image,
            resources,
            network,
            env,
            labels,
            created_at_ms,
            on_start,
            services,
            idle,
            ttl_ms,
            activity,
            usage,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Wake, Waker},
    };

    use super::*;
    use crate::number::Numbers;
    use crate::record::tests::record;

    pub(crate) fn sandbox(id: &str, state: State) -> Sandbox {
        let number = Numbers::new().take();
        Sandbox::new(record(id, 1), (number.clone(), number), state, &Arc::new(Alarm::new()))
    }

    #[tokio::test]
    async fn of_many_that_begin_at_once_one_begins_and_the_others_wait_for_it() {
        let sandbox = sandbox("a", State::Stopped);
        assert_eq!(sandbox.begin(Operation::Use), (Admission::Begin, State::Stopped));
        assert_eq!(sandbox.begin(Operation::Use), (Admission::Wait, State::Creating));
        assert_eq!(sandbox.begin(Operation::Destroy).0, Admission::Wait);
        let agent = AgentIdentity { pid: 1, start_time: 1, boot_id: String::new() };
        let (settled, ()) = tokio::join!(sandbox.settled(), async {
            sandbox.set(State::Running(agent.clone()));
        });
        assert_eq!(settled.unwrap(), State::Running(agent));
    }

    #[test]
    fn a_life_whose_end_could_not_be_recorded_does_not_end_again_at_once() {
        let number = Numbers::new().take();
        let mut record = record("a", 1);
        record.settings.ttl_ms = 1;
        let alarm = Arc::new(Alarm::new());
        let sandbox = Sandbox::new(record, (number.clone(), number), State::Stopped, &alarm);
        let begun_ms = alarm.clock.now_ms();
        assert!(sandbox.next_rung().unwrap().at_ms <= begun_ms);
        sandbox.begin(Operation::Destroy);
        sandbox.set(State::Stopped);
        assert!(sandbox.next_rung().unwrap().at_ms >= begun_ms + 1_000);
    }

    #[test]
    fn a_life_is_as_long_as_it_was_to_be_whatever_the_machine_s_clock_was_set_to() {
        const HOUR: i64 = 3_600_000;
        for ahead in [HOUR, -HOUR] {
            let (number, alarm) = (Numbers::new().take(), Arc::new(Alarm::ahead(ahead)));
            let mut record = record("a", 1);
            record.created_at_ms = now_ms() - HOUR / 6;
            record.settings.ttl_ms = 2 * HOUR.unsigned_abs() / 3;
            let numbers = (number.clone(), number);
            let sandbox = Sandbox::new(record, numbers, State::Stopped, &alarm);
            let left = sandbox.rest().dies_at_ms.unwrap() - alarm.clock.now_ms();
            assert!((HOUR / 2 - 60_000..=HOUR / 2).contains(&left), "{left}");
        }
    }

    #[tokio::test]
    async fn the_end_of_an_earlier_agent_does_not_stop_a_later_one() {
        let agent = |pid| AgentIdentity { pid, start_time: 1, boot_id: String::new() };
        let sandbox = sandbox("a", State::Running(agent(2)));
        assert!(!sandbox.begin_end_of(&agent(1)));
        sandbox.outlived(&agent(1)).await;
        assert!(sandbox.has_processes());
        assert!(sandbox.begin_end_of(&agent(2)));
        assert_eq!(sandbox.state(), State::Stopping);
    }

    #[test]
    fn the_end_of_a_use_wakes_those_who_wait_for_it_and_nobody_else() {
        struct Bell(AtomicUsize);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let agent = AgentIdentity { pid: 1, start_time: 1, boot_id: String::new() };
        let sandbox = Arc::new(sandbox("a", State::Running(agent.clone())));
        let user = sandbox.enter().unwrap();
        let bells = [(); 2].map(|()| Arc::new(Bell(AtomicUsize::new(0))));
        let [unused, outlived] = bells.clone().map(Waker::from);
        let mut waits_for_end = pin!(sandbox.unused());
        let mut waits_for_agent = pin!(sandbox.outlived(&agent));
        assert!(waits_for_end.as_mut().poll(&mut Context::from_waker(&unused)).is_pending());
        assert!(waits_for_agent.as_mut().poll(&mut Context::from_waker(&outlived)).is_pending());

        drop(user);
        assert!(waits_for_end.as_mut().poll(&mut Context::from_waker(&unused)).is_ready());
        assert_eq!(bells.each_ref().map(|bell| bell.0.load(Ordering::Relaxed)), [1, 0]);
    }

    #[tokio::test]
    async fn a_sandbox_in_use_is_frozen_when_its_last_user_has_gone() {
        let agent = AgentIdentity { pid: 1, start_time: 1, boot_id: String::new() };
        let sandbox = Arc::new(sandbox("a", State::Running(agent)));
        let users = [sandbox.enter().unwrap(), sandbox.enter().unwrap()];
        assert_eq!(sandbox.begin(Operation::Freeze).0, Admission::InUse);

        let ((), ()) = tokio::join!(sandbox.unused(), async { drop(users) });

        assert_eq!(sandbox.begin(Operation::Freeze).0, Admission::Begin);
        assert!(sandbox.enter().is_none());
    }
}
