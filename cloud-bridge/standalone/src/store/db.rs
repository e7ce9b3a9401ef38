//! The SQLite file: one table of objects, the last revision, one transaction per batch. A file
//! that cannot be read is moved aside with a loud message and a new one begun.

use super::{Event, EventKind, Key, Packed};
use rusqlite::{Connection, params};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the data folder {path}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot move the unreadable database {path} aside")]
    MoveAside {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("another server uses the database {path}")]
    Locked { path: PathBuf },
    #[error("cannot open the database {path}")]
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot start the store's writer thread")]
    Thread(#[source] std::io::Error),
}

pub(super) struct Db {
    connection: Connection,
}

pub(super) struct Loaded {
    pub revision: u64,
    pub objects: Vec<(Key, Packed)>,
}

/// Why a file is not usable as it is.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("quick_check says: {0}")]
    Damaged(String),
    #[error("{kind} {ns}/{name} is not JSON: {source}")]
    Json {
        kind: String,
        ns: String,
        name: String,
        source: serde_json::Error,
    },
}

impl Unreadable {
    fn is_locked(&self) -> bool {
        matches!(self, Unreadable::Sqlite(rusqlite::Error::SqliteFailure(e, _))
            if e.code == rusqlite::ErrorCode::DatabaseBusy || e.code == rusqlite::ErrorCode::DatabaseLocked)
    }

    /// Damage is in the file; anything else (no space, no permission) is not cured by a new one.
    fn is_damage(&self) -> bool {
        match self {
            Unreadable::Sqlite(rusqlite::Error::SqliteFailure(e, _)) => matches!(
                e.code,
                rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase
            ),
            Unreadable::Sqlite(_) => true,
            Unreadable::Damaged(_) | Unreadable::Json { .. } => true,
        }
    }
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS objects (
        kind TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL,
        rev INTEGER NOT NULL, json BLOB NOT NULL,
        PRIMARY KEY (kind, ns, name)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

pub(super) fn open(dir: &Path) -> Result<(Db, Loaded), OpenError> {
    std::fs::create_dir_all(dir).map_err(|source| OpenError::Folder {
        path: dir.to_owned(),
        source,
    })?;
    let path = dir.join("objects.db");
    match try_open(&path) {
        Ok(opened) => Ok(opened),
        Err(error) if error.is_locked() => Err(OpenError::Locked { path }),
        Err(error) if error.is_damage() => {
            let aside = move_aside(&path)?;
            tracing::error!(
                "THE DATABASE {} CANNOT BE READ ({error}). It was moved to {} and the server \
                 starts EMPTY.",
                path.display(),
                aside.display()
            );
            try_open(&path).map_err(|error| open_error(path, error))
        }
        Err(error) => Err(open_error(path, error)),
    }
}

fn open_error(path: PathBuf, error: Unreadable) -> OpenError {
    match error {
        Unreadable::Sqlite(source) => OpenError::Open { path, source },
        // A file made a moment ago cannot hold damaged rows.
        other => OpenError::Open {
            path,
            source: rusqlite::Error::ToSqlConversionFailure(Box::new(other)),
        },
    }
}

fn move_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let stamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let aside = path.with_extension(format!("db.unreadable-{stamp}"));
    let failed = |source| OpenError::MoveAside {
        path: path.to_owned(),
        source,
    };
    std::fs::rename(path, &aside).map_err(failed)?;
    for suffix in ["-wal", "-shm"] {
        let mut companion = path.as_os_str().to_owned();
        companion.push(suffix);
        let mut target = aside.as_os_str().to_owned();
        target.push(suffix);
        match std::fs::rename(&companion, &target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn try_open(path: &Path) -> Result<(Db, Loaded), Unreadable> {
    let connection = Connection::open(path)?;
    // One server per file: the lock is taken with the first write and kept.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -512)?;
    connection.execute_batch(SCHEMA)?;
    connection.execute(
        "INSERT INTO meta VALUES ('revision', 1) ON CONFLICT DO NOTHING",
        [],
    )?;
    let check: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Unreadable::Damaged(check));
    }
    let loaded = load(&connection)?;
    Ok((Db { connection }, loaded))
}

/// A revision as SQLite keeps it; one below zero was never written by us.
fn unsigned(rev: i64) -> u64 {
    u64::try_from(rev).unwrap_or(0)
}

fn load(connection: &Connection) -> Result<Loaded, Unreadable> {
    let mut revision: u64 =
        connection.query_row("SELECT value FROM meta WHERE key = 'revision'", [], |row| {
            row.get(0).map(unsigned)
        })?;
    let mut objects = Vec::new();
    let mut statement = connection.prepare("SELECT kind, ns, name, rev, json FROM objects")?;
    let mut rows = statement.query([])?;
    let mut kinds: std::collections::HashSet<Arc<str>> = std::collections::HashSet::new();
    while let Some(row) = rows.next()? {
        let (kind, ns, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let rev = unsigned(row.get(3)?);
        let value: Value = match serde_json::from_slice(row.get_ref(4)?.as_bytes().unwrap_or(b"")) {
            Ok(value) => value,
            Err(source) => {
                return Err(Unreadable::Json {
                    kind,
                    ns,
                    name,
                    source,
                });
            }
        };
        revision = revision.max(rev);
        let kind: Arc<str> = match kinds.get(kind.as_str()) {
            Some(known) => known.clone(),
            None => {
                let kind: Arc<str> = kind.into();
                kinds.insert(kind.clone());
                kind
            }
        };
        objects.push((Key { kind, ns, name }, Packed::new(rev, &value)));
    }
    Ok(Loaded { revision, objects })
}

impl Db {
    /// Makes the file full, as a disk can be; 0 takes the limit away.
    #[cfg(test)]
    pub fn limit_pages(&self, pages: u32) -> rusqlite::Result<()> {
        let pages = if pages == 0 { u32::MAX - 1 } else { pages };
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }

    pub fn commit<'a>(&mut self, changes: impl Iterator<Item = &'a Event>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut last = 0;
        for event in changes {
            let key = &event.key;
            // SQLite counts in i64; so many revisions no server lives to see.
            last = i64::try_from(event.object.rev).unwrap_or(i64::MAX);
            if event.kind == EventKind::Deleted {
                transaction
                    .prepare_cached("DELETE FROM objects WHERE kind = ? AND ns = ? AND name = ?")?
                    .execute(params![&*key.kind, key.ns, key.name])?;
            } else {
                let json = event.object.json();
                transaction
                    .prepare_cached(
                        "INSERT INTO objects VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE \
                         SET rev = excluded.rev, json = excluded.json",
                    )?
                    .execute(params![&*key.kind, key.ns, key.name, last, json.as_bytes()])?;
            }
        }
        transaction
            .prepare_cached("UPDATE meta SET value = ? WHERE key = 'revision'")?
            .execute([last])?;
        transaction.commit()
    }
}
