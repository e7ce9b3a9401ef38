//! Opens `bus.db`, checks it after an unclean end, and moves a corrupt one aside: a broker with an
//! empty store and a new id serves the node, one that does not start serves nobody.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::config::Config;
use crate::message::now_ms;

const PAGE_BYTES: u64 = 4096;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retained(
    topic TEXT PRIMARY KEY, n INTEGER NOT NULL, qos INTEGER NOT NULL,
    payload BLOB NOT NULL, props BLOB, expires_ms INTEGER);
CREATE TABLE IF NOT EXISTS session(
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
    expiry_s INTEGER NOT NULL, left_ms INTEGER);
CREATE TABLE IF NOT EXISTS sub(
    session INTEGER NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL, rap INTEGER NOT NULL, sub_id INTEGER NOT NULL,
    replay INTEGER NOT NULL, PRIMARY KEY(session, filter)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue(
    session INTEGER NOT NULL, q INTEGER NOT NULL, n INTEGER NOT NULL, topic TEXT NOT NULL,
    qos INTEGER NOT NULL, retain INTEGER NOT NULL, payload BLOB NOT NULL, props BLOB, ids BLOB,
    expires_ms INTEGER, size INTEGER NOT NULL, UNIQUE(session, q));
";

/// The version of the tables above, in `user_version`.
const SCHEMA_VERSION: i64 = 1;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make the folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is in use by another broker")]
    InUse { path: PathBuf },
    #[error(
        "{path} was written by a newer version (schema {found}, this one knows {SCHEMA_VERSION})"
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("cannot move the corrupt {path} aside")]
    Aside {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {path}")]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot read the sessions")]
    Load(#[from] rusqlite::Error),
    #[error("cannot make a random store id: {0}")]
    Random(getrandom::Error),
    #[error("cannot start the store's thread")]
    Thread(#[source] std::io::Error),
}

pub(super) struct File {
    pub(super) db: Connection,
    pub(super) store_id: String,
    pub(super) last_commit: u64,
}

pub(super) fn open(config: &Config) -> Result<File, OpenError> {
    let folder = &config.data_dir;
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Folder {
        path: folder.clone(),
        source,
    })?;
    let path = folder.join("bus.db");
    match attempt(&path, config) {
        Err(OpenError::Sqlite { source, .. }) if is_corrupt(&source) => {
            let moved = aside(&path)?;
            tracing::error!(
                file = %path.display(), moved_to = %moved.display(), reason = %source,
                "THE BUS STORE IS CORRUPT: it was moved aside and the node starts with an empty one; \
                 what the cloud holds comes back by itself, local sessions and app/ messages do not"
            );
            attempt(&path, config)
        }
        other => other,
    }
}

/// Whether an error means that the file itself is bad.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn attempt(path: &Path, config: &Config) -> Result<File, OpenError> {
    let fail = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse {
            path: path.to_owned(),
        },
        _ => OpenError::Sqlite {
            path: path.to_owned(),
            source,
        },
    };
    let db = Connection::open(path).map_err(fail)?;
    let pages = config.store_bytes / PAGE_BYTES;
    // Exclusive: one broker per store, and no shared-memory file.
    db.execute_batch(&format!(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         PRAGMA cache_size=-256; PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=4194304;
         PRAGMA max_page_count={pages};"
    ))
    .map_err(fail)?;
    db.set_prepared_statement_cache_capacity(32);
    let version: i64 = db
        .query_row("PRAGMA user_version", [], |r| r.get(0))
        .map_err(fail)?;
    if version > SCHEMA_VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
        });
    }
    db.execute_batch(SCHEMA).map_err(fail)?;
    db.pragma_update(None, "user_version", SCHEMA_VERSION)
        .map_err(fail)?;
    if meta(&db, "clean").map_err(fail)?.as_deref() == Some("0") {
        check(&db).map_err(fail)?;
    }
    let store_id = match meta(&db, "store_id").map_err(fail)? {
        Some(id) => id,
        None => {
            let mut bytes = [0u8; 8];
            getrandom::fill(&mut bytes).map_err(OpenError::Random)?;
            let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            set_meta(&db, "store_id", &id).map_err(fail)?;
            id
        }
    };
    set_meta(&db, "clean", "0").map_err(fail)?;
    let last: Option<i64> = db
        .query_row("SELECT max(n) FROM retained", [], |r| r.get(0))
        .map_err(fail)?;
    Ok(File {
        db,
        store_id,
        last_commit: last.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
    })
}

/// After an unclean end. Reports what it finds as SQLite's own corruption error.
fn check(db: &Connection) -> rusqlite::Result<()> {
    let started = now_ms();
    let said: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    tracing::info!(ms = now_ms() - started, result = %said, "store checked after an unclean end");
    if said == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(said),
    ))
}

pub(super) fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE key=?", [key], |r| r.get(0))
        .optional()
}

pub(super) fn set_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO meta(key, value) VALUES(?1, ?2)
         ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        params![key, value],
    )
    .map(drop)
}

fn aside(path: &Path) -> Result<PathBuf, OpenError> {
    let target = path.with_extension(format!("db.corrupt-{}", now_ms()));
    let fail = |source| OpenError::Aside {
        path: path.to_owned(),
        source,
    };
    std::fs::rename(path, &target).map_err(fail)?;
    for end in ["-wal", "-shm"] {
        let mut from = path.as_os_str().to_owned();
        from.push(end);
        let mut to = target.as_os_str().to_owned();
        to.push(end);
        match std::fs::rename(&from, &to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
    }
    Ok(target)
}
