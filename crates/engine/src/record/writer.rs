//! The one thread that writes. Changes that arrive while it writes are its next group, with one
//! transaction and one fsync for all.

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{RecordError, Write, schema};

/// Changes in one transaction at most, so that the first of a group is not kept waiting long.
const GROUP: usize = 64;

/// Writes until the queue is closed and empty.
pub(super) fn write_all(mut database: Connection, mut queue: mpsc::Receiver<Write>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let results = write(&mut database, &group);
        for (write, result) in group.drain(..).zip(results) {
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

/// One transaction; each change stands or falls alone until the commit, which all share.
fn write(database: &mut Connection, group: &[Write]) -> Vec<Result<(), RecordError>> {
    let all_fail = |error: RecordError| group.iter().map(|_| Err(error.clone())).collect();
    let mut transaction = match database.transaction() {
        Ok(transaction) => transaction,
        Err(error) => return all_fail(error.into()),
    };
    let mut results = Vec::with_capacity(group.len());
    for write in group {
        let result = (|| {
            let savepoint = transaction.savepoint()?;
            schema::apply(&savepoint, &write.change)?;
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
