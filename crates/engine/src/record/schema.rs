//! The tables of the database: made, checked, read and changed.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use api::{
    id::IdPrefix,
    key::KeyScope,
    port::{PortNumber, PortToken},
};
use jail::JailId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::{
    Change, CheckpointRecord, Files, KeyRecord, Loaded, Origin, Phase, PortRecord, RecordError,
    SandboxRecord, WebhookRecord, reserve::Reserve,
};
use crate::{
    key::Digest,
    state::{AgentIdentity, Failure},
    webhook::WebhookSecret,
};

/// Version of the schema, in `user_version`. A program refuses a higher one than its own, and turns
/// a lower one into its own.
pub(super) const VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// The version of [`TABLES`].
const FIRST_VERSION: i64 = 1;

/// Each later version, in order, with what leads to it from the one before. Never changed, only
/// continued: a file may be of any of them.
const MIGRATIONS: [(i64, &str); 7] = [
    (2, PORTS),
    (3, KEYS),
    (4, CHECKPOINTS),
    (5, EVENTS),
    (6, WEBHOOKS),
    (7, QUOTAS),
    (8, NO_REVISIONS),
];

/// Marks the file as ours, in `application_id`: "SBAR".
const APPLICATION_ID: i64 = 0x5342_4152;

/// Pages of 4 KiB in the log after which it is folded into the database. Few, so that a full disk
/// finds a short log.
const CHECKPOINT_PAGES: i64 = 32;

/// The tables of the first version. Never changed: what came later is in [`MIGRATIONS`].
pub(super) const TABLES: &str = "
    CREATE TABLE sandbox (
        id            TEXT PRIMARY KEY,
        jail          INTEGER NOT NULL UNIQUE,
        slot          INTEGER NOT NULL UNIQUE,
        settings      TEXT NOT NULL,              -- JSON
        image_digest  TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        phase         TEXT NOT NULL CHECK (phase IN
                      ('creating', 'starting', 'running', 'stopped', 'failed')),
        failure       TEXT CHECK ((failure IS NOT NULL) = (phase = 'failed')),   -- JSON
        pid           INTEGER CHECK ((pid IS NOT NULL) = (phase = 'running')),
        start_time    INTEGER CHECK ((start_time IS NOT NULL) = (phase = 'running')),
        boot_id       TEXT CHECK ((boot_id IS NOT NULL) = (phase = 'running'))
    ) STRICT;
    CREATE TABLE burial (jail INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE last_jail (number INTEGER NOT NULL) STRICT;
    INSERT INTO last_jail VALUES (0);
";

const PORTS: &str = "
    CREATE TABLE port (
        jail          INTEGER NOT NULL,
        port          INTEGER NOT NULL,
        name          TEXT,
        token         TEXT,                       -- the caller's own
        generation    INTEGER NOT NULL,
        is_public     INTEGER NOT NULL,
        exposed_at_ms INTEGER,                    -- null: hidden
        revision      INTEGER NOT NULL,
        PRIMARY KEY (jail, port)
    ) STRICT, WITHOUT ROWID;
";

const KEYS: &str = "
    CREATE TABLE key (
        name          TEXT PRIMARY KEY,
        -- Written out, so that no missing value can mean that everything is allowed.
        scope         TEXT NOT NULL CHECK (scope IN ('admin', 'sandboxes')),
        prefix        TEXT CHECK ((prefix IS NOT NULL) = (scope = 'sandboxes')),
        digest        BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER,
        used_at_ms    INTEGER
    ) STRICT;
";

const CHECKPOINTS: &str = "
    ALTER TABLE sandbox ADD COLUMN volume INTEGER;          -- null: of the jail's number
    ALTER TABLE sandbox ADD COLUMN inherited_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sandbox ADD COLUMN origin INTEGER;          -- not null: it has not got its files
    ALTER TABLE sandbox ADD COLUMN origin_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE checkpoint (
        volume        INTEGER PRIMARY KEY,
        jail          INTEGER NOT NULL,
        id            TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        size_bytes    INTEGER NOT NULL,
        UNIQUE (jail, id)
    ) STRICT;
";

pub(super) const EVENTS: &str = "
    CREATE TABLE event (
        cursor        INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again
        at_ms         INTEGER NOT NULL,
        told          TEXT NOT NULL                        -- JSON, without the cursor
    ) STRICT;
";

const WEBHOOKS: &str = "
    CREATE TABLE webhook (
        name          TEXT PRIMARY KEY,
        request       TEXT NOT NULL,                       -- JSON
        secret        BLOB NOT NULL CHECK (length(secret) = 32),
        created_at_ms INTEGER NOT NULL,
        cursor        INTEGER NOT NULL
    ) STRICT;
";

const QUOTAS: &str = "
    ALTER TABLE key ADD COLUMN max_sandboxes INTEGER;      -- null: no limit of its own
";

const NO_REVISIONS: &str = "
    ALTER TABLE port DROP COLUMN revision;                 -- changes come in their order
";

/// Opens the file, or makes it.
pub(super) fn open(path: &Path) -> Result<Connection, RecordError> {
    let database = Connection::open(path)?;
    // Exclusive before the log is first used: then its index lives in our memory, not in a mapped
    // file whose growth on a full disk would be a SIGBUS. One process has the database anyway.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let check: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(RecordError::Damaged(None));
    }
    let number = |pragma: &str| database.pragma_query_value(None, pragma, |row| row.get(0));
    let (version, application): (i64, i64) = (number("user_version")?, number("application_id")?);
    let tables: i64 =
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version, tables) {
        (0, 0, 0) => bring_up(&database, 0)?,
        (APPLICATION_ID, VERSION, _) => {}
        (APPLICATION_ID, found, _) if found > VERSION => {
            return Err(RecordError::Newer { found, known: VERSION });
        }
        (APPLICATION_ID, found @ FIRST_VERSION.., _) => {
            // A full disk does not keep a node from starting; the writer holds the room again.
            Reserve::beside(path).release();
            bring_up(&database, found)?;
        }
        _ => return Err(RecordError::Damaged(None)),
    }
    Ok(database)
}

/// Brings a file of the version `found` (0: an empty one) to this program's, whole or not at all.
fn bring_up(database: &Connection, found: i64) -> Result<(), RecordError> {
    let transaction = database.unchecked_transaction()?;
    let steps = [(FIRST_VERSION, TABLES)].into_iter().chain(MIGRATIONS);
    for (_, step) in steps.filter(|(version, _)| *version > found) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(transaction.commit()?)
}

/// Reads everything.
pub(super) fn load(database: &Connection) -> Result<Loaded, RecordError> {
    let sandboxes = database
        .prepare("SELECT * FROM sandbox ORDER BY jail")?
        .query_map([], |row| Ok(sandbox(row)))?
        .map(|row| row?)
        .collect::<Result<_, RecordError>>()?;
    let burials = burials(database)?;
    let ports = ports(database)?;
    let checkpoints = checkpoints(database)?;
    let keys = database
        .prepare("SELECT * FROM key ORDER BY name")?
        .query_map([], |row| Ok(key(row)))?
        .map(|row| row?)
        .collect::<Result<_, RecordError>>()?;
    let webhooks = database
        .prepare("SELECT * FROM webhook ORDER BY name")?
        .query_map([], |row| Ok(webhook(row)))?
        .map(|row| row?)
        .collect::<Result<_, RecordError>>()?;
    let last: Option<u64> =
        database.query_row("SELECT number FROM last_jail", [], |row| row.get(0)).optional()?;
    let last = last.ok_or_else(|| RecordError::BadRow("last_jail is empty".to_owned()))?;
    Ok(Loaded { sandboxes, burials, ports, checkpoints, keys, webhooks, next_jail: last + 1 })
}

/// What is to be buried, in order.
pub(super) fn burials(database: &Connection) -> Result<Vec<JailId>, RecordError> {
    let mut statement = database.prepare_cached("SELECT jail FROM burial ORDER BY jail")?;
    let burials = statement.query_map([], |row| row.get(0).map(JailId))?;
    Ok(burials.collect::<Result<_, _>>()?)
}

fn ports(database: &Connection) -> Result<BTreeMap<JailId, Vec<PortRecord>>, RecordError> {
    let mut statement = database.prepare("SELECT * FROM port ORDER BY jail, port")?;
    let mut rows = statement.query([])?;
    let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        ports.entry(JailId(row.get("jail")?)).or_default().push(port(row)?);
    }
    Ok(ports)
}

fn checkpoints(
    database: &Connection,
) -> Result<BTreeMap<JailId, Vec<CheckpointRecord>>, RecordError> {
    let mut statement = database.prepare("SELECT * FROM checkpoint ORDER BY jail, volume")?;
    let mut rows = statement.query([])?;
    let mut checkpoints: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get("id")?;
        let bad = |error| RecordError::BadRow(format!("checkpoint {id}: {error}"));
        checkpoints.entry(JailId(row.get("jail")?)).or_default().push(CheckpointRecord {
            volume: JailId(row.get("volume")?),
            created_at_ms: row.get("created_at_ms")?,
            size_bytes: row.get("size_bytes")?,
            id: id.parse().map_err(bad)?,
        });
    }
    Ok(checkpoints)
}

fn port(row: &Row<'_>) -> Result<PortRecord, RecordError> {
    let number: u16 = row.get("port")?;
    let bad = |what: &str| RecordError::BadRow(format!("port {number}: {what}"));
    let token: Option<String> = row.get("token")?;
    Ok(PortRecord {
        port: PortNumber::new(number).ok_or_else(|| bad("it cannot be exposed"))?,
        name: row.get("name")?,
        token: token.map(|token| token.parse().map_err(|_fault| bad("token"))).transpose()?,
        generation: row.get("generation")?,
        is_public: row.get("is_public")?,
        exposed_at_ms: row.get("exposed_at_ms")?,
    })
}

fn key(row: &Row<'_>) -> Result<KeyRecord, RecordError> {
    let name: String = row.get("name")?;
    let bad = |what: &dyn std::fmt::Display| RecordError::BadRow(format!("key {name}: {what}"));
    let scope: String = row.get("scope")?;
    let prefix: Option<String> = row.get("prefix")?;
    let scope = match (scope.as_str(), prefix) {
        ("admin", None) => KeyScope::Admin {},
        ("sandboxes", Some(prefix)) => KeyScope::Sandboxes {
            prefix: prefix.parse().map_err(|error| bad(&error))?,
            max_sandboxes: row.get("max_sandboxes")?,
        },
        (other, _) => return Err(bad(&format!("unknown scope {other}"))),
    };
    Ok(KeyRecord {
        scope,
        digest: Digest::from_bytes(row.get("digest")?),
        created_at_ms: row.get("created_at_ms")?,
        expires_at_ms: row.get("expires_at_ms")?,
        used_at_ms: row.get("used_at_ms")?,
        name: name.parse().map_err(|error| bad(&error))?,
    })
}

fn webhook(row: &Row<'_>) -> Result<WebhookRecord, RecordError> {
    let request: String = row.get("request")?;
    let bad = |error| RecordError::BadRow(format!("a webhook: {error}"));
    Ok(WebhookRecord {
        request: serde_json::from_str(&request).map_err(bad)?,
        secret: WebhookSecret::of_record(row.get("secret")?),
        created_at_ms: row.get("created_at_ms")?,
        cursor: row.get("cursor")?,
    })
}

fn sandbox(row: &Row<'_>) -> Result<SandboxRecord, RecordError> {
    let id: String = row.get("id")?;
    let bad = |what: &dyn std::fmt::Display| RecordError::BadRow(format!("sandbox {id}: {what}"));
    let settings: String = row.get("settings")?;
    let phase: String = row.get("phase")?;
    let phase = match phase.as_str() {
        "creating" => Phase::Creating,
        "starting" => Phase::Starting,
        "stopped" => Phase::Stopped,
        "running" => Phase::Running(AgentIdentity {
            pid: row.get("pid")?,
            start_time: row.get("start_time")?,
            boot_id: row.get("boot_id")?,
        }),
        "failed" => {
            let failure: String = row.get("failure")?;
            let failure: Failure = serde_json::from_str(&failure).map_err(|error| bad(&error))?;
            Phase::Failed(failure)
        }
        other => return Err(bad(&format!("unknown phase {other}"))),
    };
    let jail: u64 = row.get("jail")?;
    let origin: Option<u64> = row.get("origin")?;
    let size_bytes = row.get("origin_bytes")?;
    Ok(SandboxRecord {
        jail: JailId(jail),
        files: Files {
            volume: JailId(row.get::<_, Option<u64>>("volume")?.unwrap_or(jail)),
            inherited_bytes: row.get("inherited_bytes")?,
        },
        origin: origin.map(|volume| Origin { volume: JailId(volume), size_bytes }),
        slot: row.get("slot")?,
        settings: serde_json::from_str(&settings).map_err(|error| bad(&error))?,
        image_digest: row.get("image_digest")?,
        created_at_ms: row.get("created_at_ms")?,
        phase,
        id: id.parse().map_err(|error| bad(&error))?,
    })
}

/// Makes one change inside a transaction. False: nothing is different, because what it is about is
/// gone.
pub(super) fn apply(database: &Connection, change: &Change) -> Result<bool, RecordError> {
    let changed = match change {
        Change::Create(record) => {
            database.prepare_cached(
                "INSERT INTO sandbox (id, jail, slot, settings, image_digest, created_at_ms, phase,
                    volume, inherited_bytes, origin, origin_bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'creating', ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                record.id.as_str(),
                record.jail.0,
                record.slot,
                json(&record.settings)?,
                record.image_digest,
                record.created_at_ms,
                record.files.volume.0,
                record.files.inherited_bytes,
                record.origin.map(|origin| origin.volume.0),
                record.origin.map_or(0, |origin| origin.size_bytes),
            ])?;
            set_phase(database, record.jail, &record.phase)?;
            // Its jail was a blank, if it has one by now.
            end_burial(database, record.jail)?;
            1
        }
        Change::Phase(jail, phase) => set_phase(database, *jail, phase)?,
        Change::Settings(jail, settings) => database
            .prepare_cached("UPDATE sandbox SET settings = ?2 WHERE jail = ?1")?
            .execute(params![jail.0, json(settings)?])?,
        Change::Port(jail, port) => set_port(database, *jail, port)?,
        Change::Checkpoint(jail, checkpoint) => add_checkpoint(database, *jail, checkpoint)?,
        Change::Files(jail, files) => set_files(database, *jail, *files)?,
        Change::Bury(jail) => bury(database, *jail)?,
        Change::Remains(jail) => {
            note_remains(database, *jail)?;
            // There are remains, also when that was known.
            1
        }
        Change::Buried(jail) => {
            database.prepare_cached("DELETE FROM burial WHERE jail = ?1")?.execute([jail.0])?
        }
        Change::CreateKey(record) => create_key(database, record)?,
        Change::RemoveKey(name) => {
            database.prepare_cached("DELETE FROM key WHERE name = ?1")?.execute([name.as_str()])?
        }
        Change::KeyUsed(name, at_ms) => database
            .prepare_cached("UPDATE key SET used_at_ms = ?2 WHERE name = ?1")?
            .execute(params![name.as_str(), at_ms])?,
        Change::CreateWebhook(record) => create_webhook(database, record)?,
        Change::RemoveWebhook(name) => database
            .prepare_cached("DELETE FROM webhook WHERE name = ?1")?
            .execute([name.as_str()])?,
        Change::WebhookCursor(name, cursor) => database
            .prepare_cached("UPDATE webhook SET cursor = ?2 WHERE name = ?1")?
            .execute(params![name.as_str(), cursor])?,
        // What it is about is not on record.
        Change::Nothing => 1,
    };
    Ok(changed > 0)
}

/// The sandbox, its volume and its checkpoints, or the checkpoint. Returns how many those were; like
/// what follows, rows.
fn bury(database: &Connection, jail: JailId) -> Result<usize, RecordError> {
    for statement in [
        "DELETE FROM port WHERE jail = ?1",
        "INSERT OR IGNORE INTO burial VALUES (?1)",
        "INSERT OR IGNORE INTO burial SELECT volume FROM checkpoint WHERE jail = ?1",
        "INSERT OR IGNORE INTO burial
         SELECT volume FROM sandbox WHERE jail = ?1 AND volume IS NOT NULL",
    ] {
        database.prepare_cached(statement)?.execute([jail.0])?;
    }
    let mut forgotten = 0;
    for statement in [
        "DELETE FROM checkpoint WHERE jail = ?1 OR volume = ?1",
        "DELETE FROM sandbox WHERE jail = ?1",
    ] {
        forgotten += database.prepare_cached(statement)?.execute([jail.0])?;
    }
    note_jail(database, jail)?;
    Ok(forgotten)
}

/// A burial of what has none, unless the number is somebody's.
fn note_remains(database: &Connection, jail: JailId) -> Result<(), RecordError> {
    let owned: bool = database
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM sandbox WHERE jail = ?1 OR volume = ?1)
                 OR EXISTS (SELECT 1 FROM checkpoint WHERE volume = ?1)",
        )?
        .query_row([jail.0], |row| row.get(0))?;
    if owned {
        return Err(RecordError::Owned(jail));
    }
    database.prepare_cached("INSERT OR IGNORE INTO burial VALUES (?1)")?.execute([jail.0])?;
    note_jail(database, jail)
}

fn add_checkpoint(
    database: &Connection,
    jail: JailId,
    checkpoint: &CheckpointRecord,
) -> Result<usize, RecordError> {
    let added = database
        .prepare_cached(
            "INSERT INTO checkpoint (volume, jail, id, created_at_ms, size_bytes)
             SELECT ?2, ?1, ?3, ?4, ?5 FROM sandbox WHERE jail = ?1",
        )?
        .execute(params![
            jail.0,
            checkpoint.volume.0,
            checkpoint.id.as_str(),
            checkpoint.created_at_ms,
            checkpoint.size_bytes,
        ])?;
    if added > 0 {
        end_burial(database, checkpoint.volume)?;
    }
    Ok(added)
}

fn set_files(database: &Connection, jail: JailId, files: Files) -> Result<usize, RecordError> {
    database
        .prepare_cached(
            "INSERT OR IGNORE INTO burial
             SELECT coalesce(volume, jail) FROM sandbox
             WHERE jail = ?1 AND coalesce(volume, jail) != ?2",
        )?
        .execute([jail.0, files.volume.0])?;
    let set = database
        .prepare_cached(
            "UPDATE sandbox SET volume = ?2, inherited_bytes = ?3, origin = NULL WHERE jail = ?1",
        )?
        .execute([jail.0, files.volume.0, files.inherited_bytes])?;
    if set > 0 {
        end_burial(database, files.volume)?;
    }
    Ok(set)
}

fn end_burial(database: &Connection, volume: JailId) -> Result<(), RecordError> {
    database.prepare_cached("DELETE FROM burial WHERE jail = ?1")?.execute([volume.0])?;
    note_jail(database, volume)
}

fn create_key(database: &Connection, record: &KeyRecord) -> Result<usize, RecordError> {
    let (scope, max_sandboxes) = match record.scope {
        KeyScope::Admin {} => ("admin", None),
        KeyScope::Sandboxes { max_sandboxes, .. } => ("sandboxes", max_sandboxes),
    };
    let created = database
        .prepare_cached(
            "INSERT INTO key (name, scope, prefix, digest, created_at_ms, expires_at_ms, used_at_ms,
                max_sandboxes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            record.name.as_str(),
            scope,
            record.scope.prefix().map(IdPrefix::as_str),
            record.digest.to_bytes(),
            record.created_at_ms,
            record.expires_at_ms,
            record.used_at_ms,
            max_sandboxes,
        ])?;
    Ok(created)
}

fn create_webhook(database: &Connection, record: &WebhookRecord) -> Result<usize, RecordError> {
    let created = database
        .prepare_cached(
            "INSERT INTO webhook (name, request, secret, created_at_ms, cursor)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            record.request.name.as_str(),
            json(&record.request)?,
            record.secret.to_record(),
            record.created_at_ms,
            record.cursor,
        ])?;
    Ok(created)
}

fn set_phase(database: &Connection, jail: JailId, phase: &Phase) -> Result<usize, RecordError> {
    let (name, failure, agent) = match phase {
        Phase::Creating => ("creating", None, None),
        Phase::Starting => ("starting", None, None),
        Phase::Running(agent) => ("running", None, Some(agent)),
        Phase::Stopped => ("stopped", None, None),
        Phase::Failed(failure) => ("failed", Some(json(failure)?), None),
    };
    let set = database
        .prepare_cached(
            "UPDATE sandbox SET phase = ?2, failure = ?3, pid = ?4, start_time = ?5, boot_id = ?6
         WHERE jail = ?1",
        )?
        .execute(params![
            jail.0,
            name,
            failure,
            agent.map(|agent| agent.pid),
            agent.map(|agent| agent.start_time),
            agent.map(|agent| &agent.boot_id),
        ])?;
    Ok(set)
}

fn set_port(database: &Connection, jail: JailId, port: &PortRecord) -> Result<usize, RecordError> {
    let set = database
        .prepare_cached(
            "INSERT INTO port
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 FROM sandbox WHERE jail = ?1
             ON CONFLICT DO UPDATE SET
                name = excluded.name, token = excluded.token, generation = excluded.generation,
                is_public = excluded.is_public, exposed_at_ms = excluded.exposed_at_ms",
        )?
        .execute(params![
            jail.0,
            port.port.get(),
            port.name,
            port.token.as_ref().map(PortToken::as_str),
            port.generation,
            port.is_public,
            port.exposed_at_ms,
        ])?;
    Ok(set)
}

fn note_jail(database: &Connection, jail: JailId) -> Result<(), RecordError> {
    database.prepare_cached("UPDATE last_jail SET number = max(number, ?1)")?.execute([jail.0])?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, RecordError> {
    serde_json::to_string(value).map_err(|error| RecordError::BadRow(error.to_string()))
}

impl From<rusqlite::Error> for RecordError {
    /// The attempted action is always the same: to use the database.
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let error = Arc::new(error);
        match code {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(Some(error))
            }
            _ => Self::Failed(error),
        }
    }
}
