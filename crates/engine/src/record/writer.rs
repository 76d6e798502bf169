//! The one thread that writes. Changes that arrive while it writes are its next group, with one
//! transaction and one fsync for all. What was asked between them is read behind the group.

use std::sync::Arc;

use api::event::Event;
use failpoint::failpoint;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc};

use super::{
    Asked, Change, Entry, RecordError, Write,
    event::{self, Kept},
    reserve::Reserve,
    schema,
};
use crate::node::now_ms;

/// Changes in one transaction at most, so that the first of a group is not kept waiting long.
const GROUP: usize = 64;

type Results = Vec<Result<(), RecordError>>;

/// The database and what is known of it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) database: Connection,
    pub(super) reserve: Reserve,
    pub(super) kept: Kept,
    /// Gets each event once it is on disk. That nobody follows is no error.
    pub(super) told: broadcast::Sender<Arc<Event>>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn work(mut self, mut queue: mpsc::Receiver<Asked>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            let (mut writes, mut reads, mut burials) = (Vec::new(), Vec::new(), Vec::new());
            for asked in group.drain(..) {
                match asked {
                    Asked::Write(write) => writes.push(write),
                    Asked::Read(after, reply) => reads.push((after, reply)),
                    Asked::Burials(reply) => burials.push(reply),
                }
            }
            if !writes.is_empty() {
                self.write_group(writes);
            }
            for (after, reply) in reads {
                // Who no longer waits needs no answer.
                drop(reply.send(event::read(&self.database, after)));
            }
            for reply in burials {
                drop(reply.send(schema::burials(&self.database)));
            }
        }
        if let Err((_, error)) = self.database.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing the database failed");
        }
    }

    fn write_group(&mut self, group: Vec<Write>) {
        let results = self.write(&group);
        for (write, result) in group.into_iter().zip(results) {
            // Told late, as if the answer had not come in time.
            let late = failpoint!("record.{}.done", write.entry.change.name());
            let result = result.and(late.map_err(|_injected| RecordError::Late));
            match (write.reply, result) {
                // Who no longer waits learns the truth at the next start.
                (Some(reply), result) => drop(reply.send(result)),
                (None, Ok(())) => {}
                (None, Err(error)) => tracing::error!(
                    change = ?write.entry.change,
                    error = &error as &dyn std::error::Error,
                    "a change is not recorded"
                ),
            }
        }
    }

    /// Writes a group. On a full disk, what is new is refused and what goes may use the reserve.
    fn write(&mut self, group: &[Write]) -> Results {
        let held = self.reserve.hold();
        let is_new = |write: &Write| {
            matches!(
                write.entry.change,
                Change::Create(_)
                    | Change::CreateKey(_)
                    | Change::CreateWebhook(_)
                    | Change::WebhookCursor(..)
                    | Change::KeyUsed(..)
                    | Change::Nothing
            )
        };
        let mut results: Results = match held {
            Ok(()) => self.transact(group.iter().map(|write| &write.entry)),
            Err(error) => {
                let full = RecordError::Full(Arc::new(error));
                group.iter().map(|_| Err(full.clone())).collect()
            }
        };
        let is_left = |(write, result): &(&Write, &mut Result<(), RecordError>)| {
            !is_new(write) && matches!(result, Err(RecordError::Full(_)))
        };
        let (left, places): (Vec<_>, Vec<_>) =
            group.iter().zip(&mut results).filter(is_left).unzip();
        if left.is_empty() {
            return results;
        }
        self.reserve.release();
        let again = self.transact(left.into_iter().map(|write| &write.entry));
        for (place, result) in places.into_iter().zip(again) {
            *place = result;
        }
        // Shortens the log, so that the reserve finds room again; if not, the next group tries.
        let folded =
            self.database.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()));
        if let Err(error) = folded {
            tracing::warn!(%error, "the disk of the state directory is full");
        }
        results
    }

    /// One transaction; each change stands or falls alone, with its event, until the commit, which
    /// all share. Then the events are told.
    fn transact<'a>(&mut self, entries: impl ExactSizeIterator<Item = &'a Entry>) -> Results {
        let count = entries.len();
        let all_fail = |error: RecordError| vec![Err(error); count];
        let mut transaction = match self.database.transaction() {
            Ok(transaction) => transaction,
            Err(error) => return all_fail(error.into()),
        };
        let (mut results, mut events) = (Vec::with_capacity(count), Vec::new());
        let mut kept = self.kept;
        for entry in entries {
            let result = (|| {
                failpoint!("record.{}", entry.change.name()).map_err(|_injected| injected())?;
                let savepoint = transaction.savepoint()?;
                let is_changed = schema::apply(&savepoint, &entry.change)?;
                let mut with = kept;
                let told = entry.event.as_ref().filter(|_| is_changed);
                let event = told.map(|draft| with.add(&savepoint, draft.event()));
                let event = event.transpose()?;
                savepoint.commit()?;
                kept = with;
                events.extend(event);
                Ok::<_, RecordError>(())
            })();
            // A full disk can end the whole transaction, and with it the changes before.
            if let (true, Err(error)) = (transaction.is_autocommit(), &result) {
                return all_fail(error.clone());
            }
            results.push(result);
        }
        if !events.is_empty()
            && let Err(error) = kept.drop_old(&transaction, now_ms())
        {
            // The changes stand all the same, and the next group tries again.
            tracing::warn!(error = &error as &dyn std::error::Error, "old events are not dropped");
        }
        if let Err(error) = transaction.commit() {
            return all_fail(error.into());
        }
        self.kept = kept;
        for event in events {
            self.told.send(Arc::new(event)).unwrap_or_default();
        }
        results
    }
}

/// What a failpoint has the database say.
fn injected() -> rusqlite::Error {
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(error, None)
}
