//! Events on disk: added with the change they tell of, read by cursor, dropped when they are too many
//! or too old.

use api::{
    event::Event,
    limit::{EVENT_DAYS, EVENTS, EVENTS_BYTES},
};
use rusqlite::{Connection, params};

use super::RecordError;

/// Events read in one step, so that no change waits long behind it.
const READ: usize = 1024;

/// Bytes of them, as for their number. The first is read whatever it has.
const READ_BYTES: usize = 1024 * 1024;

/// Events dropped in one step, so that no group of changes is kept waiting long: more than one adds.
const DROPPED: u64 = 256;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Events that follow a cursor, and which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chapter {
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// There are more behind them.
    pub(crate) has_more: bool,
    /// The first that is kept; the one after the newest when none is.
    pub(crate) oldest: u64,
    /// The last that there was; 0 before the first.
    pub(crate) newest: u64,
}

/// How much is kept at most.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    count: u64,
    bytes: u64,
    age_ms: i64,
}

const BOUNDS: Bounds =
    Bounds { count: EVENTS, bytes: EVENTS_BYTES, age_ms: EVENT_DAYS as i64 * DAY_MS };

/// How much is kept, so that nobody has to count it for each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    count: u64,
    bytes: u64,
    /// When the oldest of them happened.
    oldest_at_ms: i64,
}

impl Kept {
    /// Counts what is kept.
    pub(super) fn count(database: &Connection) -> Result<Self, RecordError> {
        let count =
            "SELECT count(*), coalesce(sum(length(CAST(told AS BLOB))), 0), coalesce(min(at_ms), 0)
                     FROM event";
        let read = database.query_row(count, [], |row| {
            Ok(Self { count: row.get(0)?, bytes: row.get(1)?, oldest_at_ms: row.get(2)? })
        });
        Ok(read?)
    }

    /// Adds an event and gives it its cursor.
    pub(super) fn add(
        &mut self,
        database: &Connection,
        event: &Event,
    ) -> Result<Event, RecordError> {
        let told =
            serde_json::to_string(event).map_err(|error| RecordError::BadRow(error.to_string()))?;
        database
            .prepare_cached("INSERT INTO event (at_ms, told) VALUES (?1, ?2)")?
            .execute(params![event.at_ms, told])?;
        let cursor = u64::try_from(database.last_insert_rowid()).unwrap_or_default();
        if self.count == 0 {
            self.oldest_at_ms = event.at_ms;
        }
        self.count += 1;
        self.bytes += told.len() as u64;
        Ok(Event { cursor, ..event.clone() })
    }

    /// Drops the oldest of what is over the bounds: some, for the rest goes with the next change.
    pub(super) fn drop_old(
        &mut self,
        database: &Connection,
        now_ms: i64,
    ) -> Result<(), RecordError> {
        self.drop_over(BOUNDS, database, now_ms)
    }

    fn drop_over(
        &mut self,
        bounds: Bounds,
        database: &Connection,
        now_ms: i64,
    ) -> Result<(), RecordError> {
        let is_old = |at_ms: i64| at_ms < now_ms.saturating_sub(bounds.age_ms);
        let is_over = self.count > bounds.count || self.bytes > bounds.bytes;
        if self.count == 0 || !(is_over || is_old(self.oldest_at_ms)) {
            return Ok(());
        }
        let mut left = *self;
        let mut last = 0_u64;
        let mut oldest = database.prepare_cached(
            "SELECT cursor, at_ms, length(CAST(told AS BLOB)) FROM event ORDER BY cursor LIMIT ?1",
        )?;
        let mut rows = oldest.query([DROPPED])?;
        while let Some(row) = rows.next()? {
            left.oldest_at_ms = row.get(1)?;
            // Somewhat more than too much, so that the next events do not each drop one.
            let is_too_much = is_over
                && (left.count + DROPPED / 2 > bounds.count
                    || left.bytes + left.bytes / 16 > bounds.bytes);
            if !(is_too_much || is_old(left.oldest_at_ms)) {
                break;
            }
            last = row.get(0)?;
            left.count -= 1;
            left.bytes -= row.get::<_, u64>(2)?;
        }
        database.prepare_cached("DELETE FROM event WHERE cursor <= ?1")?.execute([last])?;
        *self = left;
        Ok(())
    }
}

/// Reads the events after a cursor, or from the oldest on.
pub(super) fn read(database: &Connection, after: Option<u64>) -> Result<Chapter, RecordError> {
    let newest: u64 = database.query_row(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'",
        [],
        |row| row.get(0),
    )?;
    let oldest: Option<u64> =
        database.query_row("SELECT min(cursor) FROM event", [], |row| row.get(0))?;
    let (mut events, mut bytes, mut has_more) = (Vec::new(), 0, false);
    let mut statement = database
        .prepare_cached("SELECT cursor, told FROM event WHERE cursor > ?1 ORDER BY cursor")?;
    // A cursor that no event of SQLite can have is after all of them.
    let mut rows = statement.query([i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let (cursor, told): (u64, String) = (row.get(0)?, row.get(1)?);
        bytes += told.len();
        if events.len() == READ || (bytes > READ_BYTES && !events.is_empty()) {
            has_more = true;
            break;
        }
        let event: Event = serde_json::from_str(&told)
            .map_err(|error| RecordError::BadRow(format!("event {cursor}: {error}")))?;
        events.push(Event { cursor, ..event });
    }
    Ok(Chapter { events, has_more, oldest: oldest.unwrap_or(newest + 1), newest })
}

#[cfg(test)]
mod tests {
    use api::event::{EventCause, EventKind};

    use super::*;

    fn database() -> Connection {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(crate::record::schema::EVENTS).unwrap();
        database
    }

    fn event(at_ms: i64) -> Event {
        Event {
            cursor: 0,
            at_ms,
            kind: EventKind::Created,
            cause: EventCause::Request,
            sandbox_id: Some("a".parse().unwrap()),
            labels: [("k".to_owned(), "ä".to_owned())].into(),
            key: None,
            checkpoint: None,
            source: None,
            message: None,
        }
    }

    fn cursors(database: &Connection, after: Option<u64>) -> Vec<u64> {
        let chapter = read(database, after).unwrap();
        chapter.events.iter().map(|event| event.cursor).collect()
    }

    #[test]
    fn events_are_read_as_they_were_added_in_chapters() {
        let database = database();
        let mut kept = Kept::count(&database).unwrap();
        let empty = read(&database, None).unwrap();
        assert_eq!((empty.oldest, empty.newest, empty.has_more), (1, 0, false));
        let added: Vec<Event> =
            (0..=1024).map(|at_ms| kept.add(&database, &event(at_ms)).unwrap()).collect();
        let first = read(&database, None).unwrap();
        assert_eq!((&first.events[..], first.has_more), (&added[..1024], true));
        assert_eq!((first.oldest, first.newest), (1, 1025));
        assert_eq!(cursors(&database, Some(1023)), [1024, 1025]);
        assert_eq!(cursors(&database, Some(u64::MAX)), Vec::<u64>::new());
        assert_eq!(Kept::count(&database).unwrap(), kept);
    }

    #[test]
    fn what_is_over_a_bound_goes_oldest_first_and_its_cursors_do_not_come_again() {
        let database = database();
        let mut kept = Kept::count(&database).unwrap();
        for at_ms in 0..1000 {
            kept.add(&database, &event(at_ms)).unwrap();
        }
        let all = Bounds { count: 1000, bytes: u64::MAX, age_ms: 1000 };
        kept.drop_over(all, &database, 1000).unwrap();
        assert_eq!(cursors(&database, None).first(), Some(&1));

        kept.drop_over(Bounds { count: 999, ..all }, &database, 1000).unwrap();
        assert_eq!(cursors(&database, None).first(), Some(&130));
        kept.drop_over(Bounds { age_ms: 500, ..all }, &database, 1000).unwrap();
        assert_eq!(cursors(&database, None).first(), Some(&386));
        kept.drop_over(Bounds { bytes: 1, ..all }, &database, 1000).unwrap();
        assert_eq!(cursors(&database, None).first(), Some(&642));
        for _ in 0..3 {
            kept.drop_over(Bounds { age_ms: 0, ..all }, &database, 2000).unwrap();
        }
        assert_eq!(kept.count, 0);
        let empty = read(&database, None).unwrap();
        assert_eq!((empty.oldest, empty.newest), (1001, 1000));
        assert_eq!(kept.add(&database, &event(7)).unwrap().cursor, 1001);
        assert_eq!(Kept::count(&database).unwrap(), kept);
    }
}
