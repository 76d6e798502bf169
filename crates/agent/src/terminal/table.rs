//! The terminals of the sandbox by id: a bounded number, of which the ended ones make way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    error::{ApiError, ErrorCode},
    id::TerminalId,
    limit::{TERMINAL_VIEWERS, TERMINALS_PER_SANDBOX},
};

use super::state::Terminal;

/// The terminals that run or are remembered.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<TerminalId, Arc<Terminal>>,
    /// Number of the next generated id.
    next: u64,
}

impl Terminals {
    /// The terminal `id`.
    pub(super) fn get(&self, id: &TerminalId) -> Result<Arc<Terminal>, ApiError> {
        self.known().by_id.get(id).cloned().ok_or_else(|| {
            let text = format!(
                "no terminal {id} in this sandbox: it never was, or ended and was forgotten; list \
                 them with GET terminals"
            );
            ApiError::new(ErrorCode::TerminalNotFound, text).with("terminal", id.as_str())
        })
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Terminal>> {
        let mut all: Vec<_> = self.known().by_id.values().cloned().collect();
        all.sort_by_key(|terminal| terminal.number);
        all
    }

    /// Puts in the terminal that `start` makes of its id and its number, in the place of an ended one
    /// where that is needed.
    pub(super) fn add(
        &self,
        id: Option<TerminalId>,
        start: impl FnOnce(TerminalId, u64) -> Result<Arc<Terminal>, ApiError>,
    ) -> Result<Arc<Terminal>, ApiError> {
        let mut known = self.known();
        let id = match id {
            Some(id) if known.by_id.get(&id).is_some_and(|terminal| !terminal.is_over()) => {
                let text = format!(
                    "terminal {id} runs already; attach to it, delete it, or take another id"
                );
                let error = ApiError::new(ErrorCode::TerminalExists, text);
                return Err(error.with("terminal", id.as_str()));
            }
            Some(id) => id,
            None => known.generate(),
        };
        known.make_room(&id)?;
        let number = known.next;
        known.next += 1;
        let terminal = start(id, number)?;
        if let Some(ended) = known.by_id.insert(terminal.id.clone(), Arc::clone(&terminal)) {
            ended.forget();
        }
        Ok(terminal)
    }

    /// Forgets `terminal`. True if it was known until now.
    pub(super) fn remove(&self, terminal: &Arc<Terminal>) -> bool {
        let mut known = self.known();
        let is_known = known.holds(terminal);
        if is_known {
            known.by_id.remove(&terminal.id);
        }
        is_known
    }

    pub(super) fn holds(&self, terminal: &Arc<Terminal>) -> bool {
        self.known().holds(terminal)
    }

    /// Refuses one viewer too many.
    pub(super) fn admit_viewer(&self) -> Result<(), ApiError> {
        let viewers: usize = self.known().by_id.values().map(|terminal| terminal.viewers()).sum();
        if viewers < TERMINAL_VIEWERS {
            return Ok(());
        }
        let text = format!("{TERMINAL_VIEWERS} viewers look at the terminals of this sandbox");
        Err(ApiError::new(ErrorCode::TooManyRequests, text).with("limit", TERMINAL_VIEWERS))
    }

    /// Nothing that can panic happens to the map under the lock, so a poisoned one holds whole data.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn holds(&self, terminal: &Arc<Terminal>) -> bool {
        self.by_id.get(&terminal.id).is_some_and(|known| Arc::ptr_eq(known, terminal))
    }

    fn generate(&mut self) -> TerminalId {
        loop {
            let id = format!("terminal-{}", self.next);
            self.next += 1;
            let id: TerminalId = id.parse().expect("a word and a number are an id");
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// Makes a place for `id`, unless it has one.
    fn make_room(&mut self, id: &TerminalId) -> Result<(), ApiError> {
        if self.by_id.len() < TERMINALS_PER_SANDBOX || self.by_id.contains_key(id) {
            return Ok(());
        }
        let ended = self.by_id.values().filter(|terminal| terminal.is_over());
        let Some(oldest) = ended.min_by_key(|terminal| terminal.number).cloned() else {
            let text = format!("{TERMINALS_PER_SANDBOX} terminals run in this sandbox; end one");
            let error = ApiError::new(ErrorCode::TooManyRequests, text);
            return Err(error.with("limit", TERMINALS_PER_SANDBOX));
        };
        self.by_id.remove(&oldest.id);
        oldest.forget();
        Ok(())
    }
}
