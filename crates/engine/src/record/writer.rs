//! The one thread that writes. Changes that arrive while it writes are its next group, with one
//! transaction and one fsync for all.

use std::sync::Arc;

use failpoint::failpoint;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{Change, RecordError, Write, reserve::Reserve, schema};

/// Changes in one transaction at most, so that the first of a group is not kept waiting long.
const GROUP: usize = 64;

type Results = Vec<Result<(), RecordError>>;

/// Writes until the queue is closed and empty.
pub(super) fn write_all(
    mut database: Connection,
    reserve: &Reserve,
    mut queue: mpsc::Receiver<Write>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let results = write(&mut database, reserve, &group);
        for (write, result) in group.drain(..).zip(results) {
            // Told late, as if the answer had not come in time.
            let late = failpoint!("record.{}.done", write.change.name());
            let result = result.and(late.map_err(|_injected| RecordError::Late));
            match (write.reply, result) {
                // Who no longer waits learns the truth at the next start.
                (Some(reply), result) => drop(reply.send(result)),
                (None, Ok(())) => {}
                (None, Err(error)) => tracing::error!(
                    change = ?write.change,
                    error = &error as &dyn std::error::Error,
                    "a change is not recorded"
                ),
            }
        }
    }
    if let Err((_, error)) = database.close() {
        tracing::warn!(error = &error as &dyn std::error::Error, "closing the database failed");
    }
}

/// Writes a group. On a full disk, what is new is refused and what goes may use the reserve.
fn write(database: &mut Connection, reserve: &Reserve, group: &[Write]) -> Results {
    let held = reserve.hold();
    let is_new = |write: &Write| {
        matches!(write.change, Change::Create(_) | Change::CreateKey(_) | Change::KeyUsed(..))
    };
    let mut results: Results = match held {
        Ok(()) => transact(database, group.iter().map(|write| &write.change)),
        Err(error) => {
            let full = RecordError::Full(Arc::new(error));
            group.iter().map(|_| Err(full.clone())).collect()
        }
    };
    let is_left = |(write, result): &(&Write, &mut Result<(), RecordError>)| {
        !is_new(write) && matches!(result, Err(RecordError::Full(_)))
    };
    let (left, places): (Vec<_>, Vec<_>) = group.iter().zip(&mut results).filter(is_left).unzip();
    if left.is_empty() {
        return results;
    }
    reserve.release();
    let again = transact(database, left.into_iter().map(|write| &write.change));
    for (place, result) in places.into_iter().zip(again) {
        *place = result;
    }
    // Shortens the log, so that the reserve finds room again; if not, the next group tries.
    let folded = database.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()));
    if let Err(error) = folded {
        tracing::warn!(%error, "the disk of the state directory is full");
    }
    results
}

/// One transaction; each change stands or falls alone until the commit, which all share.
fn transact<'a>(
    database: &mut Connection,
    changes: impl ExactSizeIterator<Item = &'a Change>,
) -> Results {
    let count = changes.len();
    let all_fail = |error: RecordError| vec![Err(error); count];
    let mut transaction = match database.transaction() {
        Ok(transaction) => transaction,
        Err(error) => return all_fail(error.into()),
    };
    let mut results = Vec::with_capacity(count);
    for change in changes {
        let result = (|| {
            failpoint!("record.{}", change.name()).map_err(|_injected| injected())?;
            let savepoint = transaction.savepoint()?;
            schema::apply(&savepoint, change)?;
            Ok::<_, RecordError>(savepoint.commit()?)
        })();
        // A full disk can end the whole transaction, and with it the changes before.
        if let (true, Err(error)) = (transaction.is_autocommit(), &result) {
            return all_fail(error.clone());
        }
        results.push(result);
    }
    match transaction.commit() {
        Ok(()) => results,
        Err(error) => all_fail(error.into()),
    }
}

/// What a failpoint has the database say.
fn injected() -> rusqlite::Error {
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(error, None)
}
