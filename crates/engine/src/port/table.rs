//! Which ports of one sandbox are exposed. Pure: what is asked becomes a change or a refusal.
//!
//! A change is made here first and recorded after, so that what is revoked is revoked at once.
//! Nobody knows a URL whose exposure is not on record yet. Changes have [`Ports::turn`]s, so that each
//! is made of what is on record, and reaches the disk in the order in which it was made.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{
    error::{ApiError, ErrorCode},
    limit::{EXPOSED_PORTS, REMEMBERED_PORTS},
    port::{PortNumber, PortToken},
};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::{EngineError, error, record::PortRecord};

/// The ports of one sandbox.
#[derive(Default)]
pub(crate) struct Ports {
    entries: Mutex<BTreeMap<PortNumber, Entry>>,
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries().keys()).finish()
    }
}

#[derive(Clone)]
struct Entry {
    record: PortRecord,
    /// None: public.
    token: Option<PortToken>,
    /// Cancelled when another entry is on record in this one's place.
    replaced: CancellationToken,
}

/// What a caller wants of a port.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) name: Option<String>,
    pub(crate) token: Option<PortToken>,
    pub(crate) is_public: bool,
    pub(crate) now_ms: i64,
}

/// A change that was made and is to be recorded.
pub(crate) struct Changed {
    pub(crate) record: PortRecord,
    pub(crate) token: Option<PortToken>,
    before: Option<Entry>,
}

impl Changed {
    /// It is on record: what went on by the port's old URL ends.
    pub(crate) fn settle(self) {
        self.before.iter().for_each(|before| before.replaced.cancel());
    }
}

/// What a visitor with a token is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Exposed,
    Hidden,
    Unknown,
}

impl Ports {
    /// Waits until nobody else changes a port of the sandbox; nobody does before the turn is dropped.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Puts back what is on record; `token` is the generated one of a generation.
    pub(crate) fn restore(
        &self,
        records: Vec<PortRecord>,
        token: impl Fn(PortNumber, u64) -> PortToken,
    ) {
        *self.entries() = records
            .into_iter()
            .map(|record| {
                let generated = |record: &PortRecord| token(record.port, record.generation);
                let token = token_of(&record, generated);
                (record.port, Entry::new(record, token))
            })
            .collect();
    }

    /// # Errors
    /// `PORT_ALREADY_EXPOSED`, `TOO_MANY_REQUESTS`, `VALIDATION_FAILED` for another port's token.
    pub(crate) fn expose(
        &self,
        port: PortNumber,
        asked: Asked,
        generated: impl Fn(u64) -> PortToken,
    ) -> Result<Changed, EngineError> {
        let mut entries = self.entries();
        let before = entries.get(&port);
        if before.is_some_and(Entry::is_exposed) {
            return Err(already_exposed(port));
        }
        check_room(&entries, before.is_none())?;
        check_token(&entries, port, asked.token.as_ref())?;
        let (generation, own) =
            before.map_or((0, None), |entry| (entry.record.generation, entry.record.token.clone()));
        let record = PortRecord {
            port,
            name: asked.name,
            token: asked.token.or(own),
            generation,
            is_public: asked.is_public,
            exposed_at_ms: Some(asked.now_ms),
        };
        Ok(put(&mut entries, record, generated))
    }

    /// # Errors
    /// `PORT_NOT_EXPOSED`.
    pub(crate) fn hide(&self, port: PortNumber) -> Result<Changed, EngineError> {
        let mut entries = self.entries();
        let entry = exposed(&entries, port)?;
        let token = entry.token.clone();
        let record = PortRecord { exposed_at_ms: None, ..entry.record.clone() };
        let before = entries.insert(port, Entry::new(record.clone(), token.clone()));
        Ok(Changed { record, token, before })
    }

    /// # Errors
    /// `PORT_NOT_EXPOSED`; `VALIDATION_FAILED` for a public port or another port's token.
    pub(crate) fn rotate(
        &self,
        port: PortNumber,
        token: Option<PortToken>,
        generated: impl Fn(u64) -> PortToken,
    ) -> Result<Changed, EngineError> {
        let mut entries = self.entries();
        let record = exposed(&entries, port)?.record.clone();
        if record.is_public {
            return Err(error::invalid("port", "the port is public: its URL has no token"));
        }
        check_token(&entries, port, token.as_ref())?;
        let generation = record.generation + 1;
        let record = PortRecord { token, generation, ..record };
        Ok(put(&mut entries, record, generated))
    }

    /// Undoes a change that could not be recorded. Returns what the port is on record again, if the
    /// change has come there late: one that was never exposed is a hidden one then.
    pub(crate) fn take_back(&self, changed: Changed) -> PortRecord {
        let before = changed.before.unwrap_or_else(|| {
            let record = PortRecord { token: None, exposed_at_ms: None, ..changed.record };
            Entry::new(record, changed.token)
        });
        let record = before.record.clone();
        self.entries().insert(record.port, before);
        record
    }

    /// The exposed ports with their tokens, sorted.
    pub(crate) fn exposed(&self) -> Vec<(PortRecord, Option<PortToken>)> {
        let entries = self.entries();
        let exposed = entries.values().filter(|entry| entry.is_exposed());
        exposed.map(|entry| (entry.record.clone(), entry.token.clone())).collect()
    }

    /// What a visitor of the port is told who presents `token`.
    pub(crate) fn judge(&self, port: PortNumber, token: Option<&str>) -> Verdict {
        self.visit(port, token).0
    }

    /// The same, with what is cancelled when the URL that was right is no more.
    pub(crate) fn visit(
        &self,
        port: PortNumber,
        token: Option<&str>,
    ) -> (Verdict, CancellationToken) {
        let entries = self.entries();
        let Some(entry) = entries.get(&port) else {
            return (Verdict::Unknown, CancellationToken::new());
        };
        let is_right = match (&entry.token, token) {
            (Some(expected), Some(token)) => {
                bool::from(expected.as_str().as_bytes().ct_eq(token.as_bytes()))
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let verdict = match (is_right, entry.is_exposed()) {
            (true, true) => Verdict::Exposed,
            (true, false) => Verdict::Hidden,
            (false, _) => Verdict::Unknown,
        };
        (verdict, entry.replaced.clone())
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<PortNumber, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(record: PortRecord, token: Option<PortToken>) -> Self {
        Self { record, token, replaced: CancellationToken::new() }
    }

    fn is_exposed(&self) -> bool {
        self.record.exposed_at_ms.is_some()
    }
}

fn put(
    entries: &mut BTreeMap<PortNumber, Entry>,
    record: PortRecord,
    generated: impl Fn(u64) -> PortToken,
) -> Changed {
    let token = token_of(&record, |record| generated(record.generation));
    let entry = Entry::new(record.clone(), token.clone());
    let before = entries.insert(record.port, entry);
    Changed { record, token, before }
}

fn token_of(
    record: &PortRecord,
    generated: impl Fn(&PortRecord) -> PortToken,
) -> Option<PortToken> {
    if record.is_public {
        return None;
    }
    Some(record.token.clone().unwrap_or_else(|| generated(record)))
}

fn exposed(entries: &BTreeMap<PortNumber, Entry>, port: PortNumber) -> Result<&Entry, EngineError> {
    entries.get(&port).filter(|entry| entry.is_exposed()).ok_or_else(|| not_exposed(port))
}

fn check_room(entries: &BTreeMap<PortNumber, Entry>, is_new: bool) -> Result<(), EngineError> {
    let exposed = entries.values().filter(|entry| entry.is_exposed()).count();
    let refused = |text: String, limit: usize| {
        Err(ApiError::new(ErrorCode::TooManyRequests, text).with("limit", limit))
    };
    if exposed >= EXPOSED_PORTS {
        let text = format!("the sandbox has {EXPOSED_PORTS} exposed ports already; hide one first");
        return refused(text, EXPOSED_PORTS);
    }
    if is_new && entries.len() >= REMEMBERED_PORTS {
        let text = format!(
            "the sandbox has exposed {REMEMBERED_PORTS} different ports in its life; use one of \
             them again"
        );
        return refused(text, REMEMBERED_PORTS);
    }
    Ok(())
}

/// One token for two ports would let who knows one URL find the other.
fn check_token(
    entries: &BTreeMap<PortNumber, Entry>,
    port: PortNumber,
    token: Option<&PortToken>,
) -> Result<(), EngineError> {
    let is_other = |entry: &&Entry| entry.record.port != port && entry.token.as_ref() == token;
    match token.and_then(|_| entries.values().find(is_other)) {
        None => Ok(()),
        Some(entry) => {
            let text = format!("the token is in use for port {} of the sandbox", entry.record.port);
            Err(error::invalid("token", &text))
        }
    }
}

fn already_exposed(port: PortNumber) -> EngineError {
    let text = format!("port {port} is exposed already; hide it first, or rotate its token");
    ApiError::new(ErrorCode::PortAlreadyExposed, text).with("port", port.get())
}

fn not_exposed(port: PortNumber) -> EngineError {
    let text = format!("port {port} is not exposed");
    ApiError::new(ErrorCode::PortNotExposed, text).with("port", port.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortNumber = PortNumber::new(8080).unwrap();
    const OTHER: PortNumber = PortNumber::new(8081).unwrap();

    fn token(text: &str) -> PortToken {
        text.parse().unwrap()
    }

    fn generated(generation: u64) -> PortToken {
        token(&format!("generated{generation}"))
    }

    fn asked(own: Option<&str>) -> Asked {
        Asked { name: None, token: own.map(token), is_public: false, now_ms: 1 }
    }

    fn expose(ports: &Ports, own: Option<&str>) -> Changed {
        ports.expose(PORT, asked(own), generated).unwrap()
    }

    fn refusal(result: Result<Changed, EngineError>) -> ErrorCode {
        result.err().unwrap().code
    }

    #[test]
    fn a_port_keeps_its_token_when_it_is_hidden_and_exposed_again() {
        let ports = Ports::default();
        expose(&ports, None);
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Exposed);
        ports.hide(PORT).unwrap();
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Hidden);
        assert_eq!(ports.judge(PORT, Some("generated1")), Verdict::Unknown);
        expose(&ports, None);
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Exposed);
    }

    #[test]
    fn a_token_that_was_rotated_away_does_not_come_back() {
        let ports = Ports::default();
        expose(&ports, None);
        ports.rotate(PORT, None, generated).unwrap();
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Unknown);
        assert_eq!(ports.judge(PORT, Some("generated1")), Verdict::Exposed);
        ports.rotate(PORT, Some(token("mine")), generated).unwrap();
        assert_eq!(ports.judge(PORT, Some("mine")), Verdict::Exposed);
        ports.hide(PORT).unwrap();
        // One's own stays, too.
        assert_eq!(expose(&ports, None).token, Some(token("mine")));
        assert_eq!(ports.rotate(PORT, None, generated).unwrap().token, Some(generated(3)));
    }

    #[test]
    fn tokens_are_whole_and_of_their_port() {
        let ports = Ports::default();
        expose(&ports, None);
        for wrong in [None, Some(""), Some("generated"), Some("generated00"), Some("GENERATED0")] {
            assert_eq!(ports.judge(PORT, wrong), Verdict::Unknown, "{wrong:?}");
        }
        assert_eq!(ports.judge(OTHER, Some("generated0")), Verdict::Unknown);
        let other = ports.expose(OTHER, asked(Some("generated0")), generated);
        assert_eq!(refusal(other), ErrorCode::ValidationFailed);
    }

    #[test]
    fn a_public_port_has_no_token() {
        let ports = Ports::default();
        let asked = Asked { is_public: true, ..asked(None) };
        ports.expose(PORT, asked, generated).unwrap();
        assert_eq!(ports.judge(PORT, None), Verdict::Exposed);
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Unknown);
        assert_eq!(refusal(ports.rotate(PORT, None, generated)), ErrorCode::ValidationFailed);
    }

    #[test]
    fn what_cannot_be_recorded_has_not_been() {
        let ports = Ports::default();
        let changed = ports.expose(PORT, asked(None), generated).unwrap();
        assert_eq!(ports.take_back(changed).exposed_at_ms, None);
        assert_eq!(refusal(ports.hide(PORT)), ErrorCode::PortNotExposed);

        let before = expose(&ports, None).record;
        let hidden = ports.hide(PORT).unwrap();
        assert_eq!(ports.take_back(hidden), before);
        assert_eq!(ports.judge(PORT, Some("generated0")), Verdict::Exposed);

        // One's own token goes with the exposure that has not been.
        let other = ports.expose(OTHER, asked(Some("mine")), generated).unwrap();
        assert_eq!(ports.take_back(other).token, None);
    }

    #[test]
    fn so_many_ports_and_no_more() {
        let ports = Ports::default();
        let port = |n: usize| PortNumber::new(u16::try_from(2000 + n).unwrap()).unwrap();
        let expose = |n: usize| {
            let token = move |_| token(&format!("t{n}"));
            ports.expose(port(n), asked(None), token)
        };
        for n in 0..EXPOSED_PORTS {
            expose(n).unwrap();
        }
        assert_eq!(refusal(expose(EXPOSED_PORTS)), ErrorCode::TooManyRequests);
        assert_eq!(refusal(expose(0)), ErrorCode::PortAlreadyExposed);
        for n in EXPOSED_PORTS..REMEMBERED_PORTS {
            ports.hide(port(n - 1)).unwrap();
            expose(n).unwrap();
        }
        ports.hide(port(REMEMBERED_PORTS - 1)).unwrap();
        assert_eq!(refusal(expose(REMEMBERED_PORTS)), ErrorCode::TooManyRequests);
        expose(REMEMBERED_PORTS - 1).unwrap();
    }
}
