//! The processes of the sandbox: those that run, and those that are remembered.
//!
//! ```text
//! add ─▶ starting ──▶ running ──▶ ended: remembered, until others need the room
//!           └─ failed: gone            └─ or gone, when nobody has a way back to it
//! ```
//!
//! Invariant: a process without a pid is nobody's to see; if it ends without one, it never was.
//! Invariant: what has ended is bounded in number, bytes and time; see [`api::limit`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{
    id::ProcessId,
    limit::{
        ENDED_PROCESS_SECS, ENDED_PROCESSES, ENDED_PROCESSES_BYTES, KEPT_ANSWER_SECS, KEPT_ANSWERS,
        KEPT_ANSWERS_BYTES,
    },
};
use tokio::sync::Notify;

use super::{Process, run::Run};

/// What a record costs beside its log and its command.
const RECORD_OVERHEAD: usize = 1024;

/// What becomes of a process's record when the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It goes.
    Nothing,
    /// It goes when nobody follows the process any more.
    WhileFollowed,
    /// It is remembered.
    Record,
    /// It is remembered with the key that leads to it.
    Answer(String),
}

/// The processes of the sandbox.
#[derive(Debug)]
pub(crate) struct Table {
    state: Mutex<State>,
    /// Told when there is more to forget.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// By the order of their starts.
    entries: BTreeMap<u64, Entry>,
    ids: HashMap<ProcessId, u64>,
    runs: HashMap<String, Arc<Run>>,
    records: Remembered,
    answers: Remembered,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    keep: Keep,
    followers: usize,
}

/// Processes that have ended, the first one first.
#[derive(Debug)]
struct Remembered {
    ended: VecDeque<Ended>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    time: Duration,
}

#[derive(Debug)]
struct Ended {
    number: u64,
    bytes: usize,
    until: Instant,
}

/// Another process has the id.
#[derive(Debug)]
pub(crate) struct IdTaken(pub(crate) Arc<Process>);

impl Default for Table {
    fn default() -> Self {
        let records = Remembered::new(ENDED_PROCESSES, ENDED_PROCESSES_BYTES, ENDED_PROCESS_SECS);
        let answers = Remembered::new(KEPT_ANSWERS, KEPT_ANSWERS_BYTES, KEPT_ANSWER_SECS);
        let (entries, ids, runs) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let state = State { entries, ids, runs, records, answers, next: 0 };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Table {
    /// No code that holds the lock can panic, so a poisoned lock holds a whole value.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a process that is about to start.
    pub(crate) fn add(&self, process: &Arc<Process>, keep: Keep) -> Result<(), IdTaken> {
        self.state().add(process, keep)
    }

    /// Takes in an exec that `key` leads back to; nothing else may have it.
    pub(crate) fn add_run(&self, key: &str, run: Arc<Run>) -> Arc<Run> {
        let mut state = self.state();
        // Generated ids are never taken.
        state.add(&run.process, Keep::Answer(key.to_owned())).unwrap_or(());
        state.runs.insert(key.to_owned(), Arc::clone(&run));
        run
    }

    /// The run that `key` leads to.
    pub(crate) fn run(&self, key: &str) -> Option<Arc<Run>> {
        self.state().runs.get(key).cloned()
    }

    /// A process by its id or, by digits alone, by its pid: the one that runs or, of those that
    /// have ended, the last.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Process>> {
        let state = self.state();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let pid = name.parse::<i32>().ok().filter(|pid| *pid > 0)?;
            let mut of_pid = state.newest_first().filter(|process| process.pid() == pid);
            let newest = of_pid.clone().next();
            return of_pid.find(|process| process.end().is_none()).or(newest).cloned();
        }
        let number = state.ids.get(&name.parse::<ProcessId>().ok()?)?;
        let process = &state.entries.get(number)?.process;
        (process.pid() != 0).then(|| Arc::clone(process))
    }

    /// All that have started, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        let state = self.state();
        let mut all: Vec<_> =
            state.newest_first().filter(|process| process.pid() != 0).cloned().collect();
        all.reverse();
        all
    }

    /// Forgets a process; it goes on if it runs.
    pub(crate) fn forget(&self, process: &Process) {
        self.state().forget(process);
    }

    /// An exec whose caller left it running is from now on remembered as a process is.
    pub(crate) fn remember(&self, process: &Process) {
        if let Some(entry) = self.state().entry(process)
            && entry.keep == Keep::Nothing
        {
            entry.keep = Keep::Record;
        }
    }

    /// Keeps a process from being forgotten while somebody follows it, if its start asked for that.
    pub(crate) fn follow(self: &Arc<Self>, process: Arc<Process>) -> Following {
        if let Some(entry) = self.state().entry(&process) {
            entry.followers += 1;
        }
        Following { table: Arc::clone(self), process }
    }

    fn unfollow(&self, process: &Process) {
        let mut state = self.state();
        let Some(entry) = state.entry(process) else { return };
        entry.followers -= 1;
        if entry.is_left() && process.end().is_some() {
            state.forget(process);
        }
    }

    /// Remembers or forgets a process that ends now.
    pub(super) fn settle(&self, process: &Process) {
        let mut state = self.state();
        let Some(entry) = state.entry(process) else { return };
        if process.pid() == 0 || entry.is_left() {
            state.forget(process);
            return;
        }
        let keep = entry.keep.clone();
        state.remember(process, &keep);
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets in time what is remembered for a time. Never returns.
    pub(crate) async fn tidy(&self) -> std::convert::Infallible {
        loop {
            let next = self.state().forget_expired(Instant::now());
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => self.changed.notified().await,
            }
        }
    }
}

/// Held by whoever follows a process.
#[derive(Debug)]
pub(crate) struct Following {
    table: Arc<Table>,
    process: Arc<Process>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.table.unfollow(&self.process);
    }
}

impl Entry {
    /// Nobody has a way back to it once it has ended.
    fn is_left(&self) -> bool {
        match self.keep {
            Keep::Nothing => true,
            Keep::WhileFollowed => self.followers == 0,
            Keep::Record | Keep::Answer(_) => false,
        }
    }
}

impl State {
    fn add(&mut self, process: &Arc<Process>, keep: Keep) -> Result<(), IdTaken> {
        let id = &process.about.id;
        if let Some(other) = self.ids.get(id).and_then(|number| self.entries.get(number)) {
            return Err(IdTaken(Arc::clone(&other.process)));
        }
        self.ids.insert(id.clone(), self.next);
        let entry = Entry { process: Arc::clone(process), keep, followers: 0 };
        self.entries.insert(self.next, entry);
        self.next += 1;
        Ok(())
    }

    fn newest_first(&self) -> impl Iterator<Item = &Arc<Process>> + Clone {
        self.entries.values().rev().map(|entry| &entry.process)
    }

    fn number(&self, process: &Process) -> Option<u64> {
        let number = *self.ids.get(&process.about.id)?;
        // Its id may be another's by now.
        let is_it = std::ptr::eq(&raw const *self.entries.get(&number)?.process, process);
        is_it.then_some(number)
    }

    fn entry(&mut self, process: &Process) -> Option<&mut Entry> {
        let number = self.number(process)?;
        self.entries.get_mut(&number)
    }

    fn forget(&mut self, process: &Process) {
        if let Some(number) = self.number(process) {
            self.records.remove(number);
            self.answers.remove(number);
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.ids.remove(&entry.process.about.id);
        if let Keep::Answer(key) = entry.keep {
            self.runs.remove(&key);
        }
    }

    fn remember(&mut self, process: &Process, keep: &Keep) {
        let Some(number) = self.number(process) else { return };
        let bytes = process.log.weight() + process.about.command.len() + RECORD_OVERHEAD;
        self.remembered(keep).push(number, bytes);
        while let Some(number) = self.remembered(keep).pop_surplus() {
            self.remove(number);
        }
    }

    fn remembered(&mut self, keep: &Keep) -> &mut Remembered {
        match keep {
            Keep::Answer(_) => &mut self.answers,
            Keep::Record | Keep::WhileFollowed | Keep::Nothing => &mut self.records,
        }
    }

    /// Forgets what has been remembered long enough, and says when the next will have been.
    fn forget_expired(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for keep in [Keep::Record, Keep::Answer(String::new())] {
            while let Some(number) = self.remembered(&keep).pop_expired(now) {
                self.remove(number);
            }
            let due = self.remembered(&keep).ended.front().map(|ended| ended.until);
            next = [next, due].into_iter().flatten().min();
        }
        next
    }
}

impl Remembered {
    fn new(most: usize, most_bytes: usize, seconds: u64) -> Self {
        let time = Duration::from_secs(seconds);
        Self { ended: VecDeque::new(), bytes: 0, most, most_bytes, time }
    }

    fn push(&mut self, number: u64, bytes: usize) {
        self.bytes += bytes;
        self.ended.push_back(Ended { number, bytes, until: Instant::now() + self.time });
    }

    fn pop(&mut self) -> Option<u64> {
        let ended = self.ended.pop_front()?;
        self.bytes -= ended.bytes;
        Some(ended.number)
    }

    fn pop_surplus(&mut self) -> Option<u64> {
        let is_over = self.ended.len() > self.most || self.bytes > self.most_bytes;
        if is_over && self.ended.len() > 1 { self.pop() } else { None }
    }

    fn pop_expired(&mut self, now: Instant) -> Option<u64> {
        if self.ended.front()?.until <= now { self.pop() } else { None }
    }

    fn remove(&mut self, number: u64) {
        if let Some(index) = self.ended.iter().position(|ended| ended.number == number) {
            self.bytes -= self.ended.remove(index).map_or(0, |ended| ended.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
