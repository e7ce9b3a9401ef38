//! `link.db`: events on their way up, until Kubernetes has them. Bounded by bytes and age; the oldest go
//! first, and are counted. They are for the cluster that the node belonged to when it said them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use edgebus_bus::payload;
use edgebus_client::rfc3339_ms;
use edgebus_linkproto::Sequenced;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use thiserror::Error;

use crate::config::SpoolLimits;
use crate::files;

#[derive(Debug, Error)]
pub enum SpoolError {
    #[error("opening the spool {path}")]
    Open {
        path: String,
        #[source]
        source: rusqlite::Error,
    },
    #[error("moving the damaged spool {path} aside")]
    Aside {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{doing} the spool of events")]
    Use {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
}

/// What an event costs beside its bytes.
const ROW_BYTES: u64 = 128;

/// The spool with its totals, which are kept in memory.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    db: Connection,
    limits: SpoolLimits,
    rows: u64,
    bytes: u64,
    dropped: u64,
    oldest_ms: Option<i64>,
    last: u64,
}

fn using(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> SpoolError {
    move |source| SpoolError::Use { doing, source }
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

impl Spool {
    /// Opens or makes `link.db`. A damaged file is moved aside: its events are lost, the node is not.
    pub fn open(dir: &Path, limits: SpoolLimits) -> Result<Spool, SpoolError> {
        let path = dir.join(files::SPOOL);
        let db = match open_checked(&path) {
            Ok(db) => db,
            Err(error) if is_damage(&error) => {
                let aside = dir.join(files::SPOOL_DAMAGED);
                tracing::error!(path = %path.display(), %error, "the spool is damaged and moved aside");
                let moved = std::fs::rename(&path, &aside);
                moved.map_err(|source| SpoolError::Aside {
                    path: path.display().to_string(),
                    source,
                })?;
                for tail in ["-wal", "-shm"] {
                    // Belongs to the damaged file; where it is not there is nothing to do.
                    drop(std::fs::remove_file(dir.join(format!("link.db{tail}"))));
                }
                open_checked(&path).map_err(|source| SpoolError::Open {
                    path: path.display().to_string(),
                    source,
                })?
            }
            Err(source) => {
                return Err(SpoolError::Open {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        let mut spool = Spool {
            path,
            db,
            limits,
            rows: 0,
            bytes: 0,
            dropped: 0,
            oldest_ms: None,
            last: 0,
        };
        spool.count()?;
        Ok(spool)
    }

    /// False once the file was removed (by `edgebus reset`): what is written now is lost.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// From now on events are of that node of that cluster; those of another one go, and are counted. How many.
    pub fn of(&mut self, owner: &str) -> Result<u64, SpoolError> {
        let read = |db: &Connection| -> rusqlite::Result<Option<String>> {
            db.query_row("SELECT name FROM owner", [], |row| row.get(0))
                .optional()
        };
        let before = read(&self.db).map_err(using("reading"))?;
        if before.as_deref() == Some(owner) {
            return Ok(0);
        }
        // What was said before the first join is this node's.
        let gone = if before.is_some() { self.rows } else { 0 };
        let tx = self.db.transaction().map_err(using("writing to"))?;
        let write = || -> rusqlite::Result<()> {
            if before.is_some() {
                tx.execute("DELETE FROM events", [])?;
            }
            let count = "UPDATE counters SET n = n + ?1 WHERE name = 'dropped'";
            tx.execute(count, [signed(gone)])?;
            tx.execute("DELETE FROM owner", [])?;
            tx.execute("INSERT INTO owner VALUES (?1)", [owner])?;
            Ok(())
        };
        write().map_err(using("writing to"))?;
        tx.commit().map_err(using("writing to"))?;
        self.count()?;
        Ok(gone)
    }

    /// Appends events; they are on disk when this returns. Topic and body of each.
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let tx = self.db.transaction().map_err(using("writing to"))?;
        let (mut rows, mut bytes) = (0, 0);
        for (topic, body) in events {
            let size = (topic.len() + body.len()) as u64 + ROW_BYTES;
            tx.prepare_cached(
                "INSERT INTO events (at_ms, topic, body, bytes) VALUES (?1, ?2, ?3, ?4)",
            )
            .and_then(|mut insert| {
                insert.execute(params![now.as_millisecond(), topic, body, signed(size)])
            })
            .map_err(using("writing to"))?;
            rows += 1;
            bytes += size;
        }
        let last = u64::try_from(tx.last_insert_rowid()).unwrap_or(0);
        tx.commit().map_err(using("writing to"))?;
        if rows > 0 {
            self.last = last;
            self.rows += rows;
            self.bytes += bytes;
            self.oldest_ms.get_or_insert(now.as_millisecond());
        }
        Ok(())
    }

    /// Drops what is too much or too old. The highest number that was dropped, if any.
    pub fn trim(&mut self, now: Timestamp) -> Result<Option<u64>, SpoolError> {
        let age_ms = i64::try_from(self.limits.age.as_millis()).unwrap_or(i64::MAX);
        let before = now.as_millisecond().saturating_sub(age_ms);
        let too_old = self.oldest_ms.is_some_and(|at| at < before);
        if !too_old && self.bytes <= self.limits.bytes {
            return Ok(None);
        }
        let mut excess = self.bytes.saturating_sub(self.limits.bytes);
        let (mut up_to, mut rows) = (None, 0u64);
        {
            let mut select = self
                .db
                .prepare_cached("SELECT id, at_ms, bytes FROM events ORDER BY id")
                .map_err(using("reading"))?;
            let mut found = select.query([]).map_err(using("reading"))?;
            while let Some(row) = found.next().map_err(using("reading"))? {
                let read = || -> rusqlite::Result<(i64, i64, i64)> {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                };
                let (id, at_ms, size) = read().map_err(using("reading"))?;
                if excess == 0 && at_ms >= before {
                    break;
                }
                excess = excess.saturating_sub(u64::try_from(size).unwrap_or(0));
                up_to = Some(id);
                rows += 1;
            }
        }
        let Some(up_to) = up_to else { return Ok(None) };
        let tx = self.db.transaction().map_err(using("trimming"))?;
        tx.execute("DELETE FROM events WHERE id <= ?1", [up_to])
            .map_err(using("trimming"))?;
        tx.execute(
            "UPDATE counters SET n = n + ?1 WHERE name = 'dropped'",
            [signed(rows)],
        )
        .map_err(using("trimming"))?;
        tx.commit().map_err(using("trimming"))?;
        self.count()?;
        Ok(u64::try_from(up_to).ok())
    }

    /// Events after a number, in order.
    pub fn after(&self, id: u64, count: usize) -> Result<Vec<Sequenced>, SpoolError> {
        if id >= self.last || count == 0 {
            return Ok(Vec::new());
        }
        let mut select = self
            .db
            .prepare_cached("SELECT id, topic, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")
            .map_err(using("reading"))?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let found = select
            .query_map(params![signed(id), count], |row| {
                Ok(Sequenced {
                    id: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                    topic: row.get(1)?,
                    uid: String::new(),
                    body: Bytes::from(row.get::<_, Vec<u8>>(2)?),
                })
            })
            .map_err(using("reading"))?;
        found.collect::<Result<_, _>>().map_err(using("reading"))
    }

    /// Kubernetes has it.
    pub fn remove(&mut self, id: u64) -> Result<(), SpoolError> {
        let size: Option<i64> = self
            .db
            .prepare_cached("DELETE FROM events WHERE id = ?1 RETURNING bytes")
            .and_then(|mut delete| delete.query_row([signed(id)], |row| row.get(0)).optional())
            .map_err(using("removing from"))?;
        if let Some(size) = size {
            self.rows = self.rows.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(u64::try_from(size).unwrap_or(0));
            self.oldest_ms = self
                .db
                .prepare_cached("SELECT at_ms FROM events ORDER BY id LIMIT 1")
                .and_then(|mut first| first.query_row([], |row| row.get(0)).optional())
                .map_err(using("reading"))?;
        }
        Ok(())
    }

    /// For `E/link`.
    pub fn totals(&self) -> payload::Spool {
        let oldest = self
            .oldest_ms
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        payload::Spool {
            rows: self.rows,
            bytes: self.bytes,
            oldest: oldest.map(rfc3339_ms),
            dropped: self.dropped,
        }
    }

    fn count(&mut self) -> Result<(), SpoolError> {
        let read = || -> rusqlite::Result<_> {
            let totals = self.db.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0), min(at_ms) FROM events",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?)),
            )?;
            let dropped: i64 =
                self.db
                    .query_row("SELECT n FROM counters WHERE name = 'dropped'", [], |r| {
                        r.get(0)
                    })?;
            // AUTOINCREMENT: numbers are never used again, though all rows may be gone.
            let last: Option<i64> = self
                .db
                .query_row(
                    "SELECT seq FROM sqlite_sequence WHERE name = 'events'",
                    [],
                    |r| r.get(0),
                )
                .optional()?;
            Ok((totals, dropped, last.unwrap_or(0)))
        };
        let ((rows, bytes, oldest_ms), dropped, last) = read().map_err(using("counting"))?;
        self.rows = u64::try_from(rows).unwrap_or(0);
        self.bytes = u64::try_from(bytes).unwrap_or(0);
        self.dropped = u64::try_from(dropped).unwrap_or(0);
        self.last = u64::try_from(last).unwrap_or(0);
        self.oldest_ms = oldest_ms;
        Ok(())
    }
}

fn open_checked(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    // FULL: the bus is told that an event is taken once it is on disk.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;
         PRAGMA journal_size_limit = 1048576;
         CREATE TABLE IF NOT EXISTS events (
             id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, topic TEXT NOT NULL,
             body BLOB NOT NULL, bytes INTEGER NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS owner (name TEXT NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;
         INSERT OR IGNORE INTO counters VALUES ('dropped', 0);",
    )?;
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(verdict),
        ));
    }
    Ok(db)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits(bytes: u64, age_s: u64) -> SpoolLimits {
        SpoolLimits {
            bytes,
            age: Duration::from_secs(age_s),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn append(spool: &mut Spool, text: &str, second: i64) {
        spool.append([("t", text.as_bytes())], at(second)).unwrap();
    }

    fn bodies(spool: &Spool, after: u64) -> Vec<Bytes> {
        spool
            .after(after, 100)
            .unwrap()
            .into_iter()
            .map(|e| e.body)
            .collect()
    }

    #[test]
    fn events_stay_in_order_over_a_restart_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        for n in 0..5 {
            append(&mut spool, &n.to_string(), 10 + n);
        }
        spool.remove(1).unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        assert_eq!(bodies(&spool, 0), ["1", "2", "3", "4"].map(Bytes::from));
        assert_eq!(bodies(&spool, 3), ["3", "4"].map(Bytes::from));
        let totals = spool.totals();
        assert_eq!((totals.rows, totals.bytes), (4, 4 * (ROW_BYTES + 2)));
        assert_eq!(totals.oldest.as_deref(), Some("1970-01-01T00:00:11.000Z"));
        for id in 2..=5 {
            spool.remove(id).unwrap();
        }
        assert_eq!(spool.totals(), payload::Spool::default());
        append(&mut spool, "new", 20);
        assert_eq!(
            spool.after(5, 10).unwrap()[0].id,
            6,
            "numbers are never used again"
        );
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), limits(3 * (ROW_BYTES + 2), 100)).unwrap();
        for n in 0..5 {
            append(&mut spool, &n.to_string(), n);
        }
        assert_eq!(spool.trim(at(5)).unwrap(), Some(2));
        assert_eq!(bodies(&spool, 0), ["2", "3", "4"].map(Bytes::from));
        assert_eq!(spool.totals().dropped, 2);
        assert_eq!(spool.trim(at(104)).unwrap(), Some(4), "too old");
        assert_eq!(spool.trim(at(104)).unwrap(), None);
        drop(spool);
        let spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        assert_eq!((spool.totals().dropped, spool.totals().rows), (4, 1));
    }

    #[test]
    fn events_of_another_cluster_are_not_told_to_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        append(&mut spool, "before the join", 1);
        assert_eq!(spool.of("gw c-1").unwrap(), 0);
        append(&mut spool, "after it", 2);
        assert_eq!(spool.of("gw c-1").unwrap(), 0);
        assert_eq!(spool.totals().rows, 2);
        assert_eq!(spool.of("gw c-2").unwrap(), 2);
        append(&mut spool, "new", 3);
        drop(spool);
        let mut spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        assert_eq!(spool.of("gw c-2").unwrap(), 0);
        assert_eq!(bodies(&spool, 0), [Bytes::from("new")]);
        assert_eq!(spool.totals().dropped, 2);
        assert!(spool.is_there());
        std::fs::remove_file(dir.path().join("link.db")).unwrap();
        assert!(!spool.is_there());
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("link.db"), vec![b'x'; 8192]).unwrap();
        let spool = Spool::open(dir.path(), limits(1 << 20, 100)).unwrap();
        assert_eq!(spool.totals().rows, 0);
        assert!(dir.path().join("link.db.damaged").exists());
    }
}
