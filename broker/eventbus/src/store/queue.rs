//! The queues of persistent sessions: append, pages in order, and removal once acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use super::retained::{expires_ms, has_expired, props_blob, qos, read_props, remaining};
use super::standing::Hit;
use crate::message::{Message, Outgoing, weight};

/// Bounds of one page.
const PAGE_MESSAGES: usize = 64;
const PAGE_BYTES: usize = 512 * 1024;

/// Appends a message that is, or is about to be, commit `n` (0 = it is not retained on disk).
pub(super) fn push(
    db: &Connection,
    message: &Message,
    hit: &Hit,
    q: u64,
    n: u64,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO queue(session, q, topic, qos, retain, payload, props, ids, expires_ms, size, n)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let ids: Vec<u8> = hit.ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    statement.execute(params![
        hit.session as i64,
        q as i64,
        &*message.topic,
        hit.qos as u8,
        hit.retain,
        &message.payload[..],
        props_blob(&message.properties),
        (!ids.is_empty()).then_some(ids),
        expires_ms(message),
        weight(message) as i64,
        n as i64,
    ])?;
    Ok(())
}

/// Removes a message and returns its size; `None` if it was gone.
pub(super) fn remove(db: &Connection, session: u64, q: u64) -> rusqlite::Result<Option<usize>> {
    let mut statement =
        db.prepare_cached("DELETE FROM queue WHERE session=?1 AND q=?2 RETURNING size")?;
    let size: Option<i64> = statement
        .query_row([session as i64, q as i64], |r| r.get(0))
        .optional()?;
    Ok(size.and_then(|s| usize::try_from(s).ok()))
}

/// The next messages of a session after `after`. Those numbered below `old` may have been sent by
/// a broker before this one. Empty = there are no more.
pub(super) fn page(
    db: &Connection,
    session: u64,
    after: u64,
    old: u64,
) -> rusqlite::Result<Vec<Outgoing>> {
    let mut statement = db.prepare_cached(
        "SELECT q, topic, qos, retain, payload, props, ids, expires_ms, n FROM queue
         WHERE session=?1 AND q>?2 ORDER BY q LIMIT ?3",
    )?;
    let mut rows = statement.query([session as i64, after as i64, PAGE_MESSAGES as i64])?;
    let (mut out, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let q = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        let quality = qos(row.get(2)?);
        let mut properties = read_props(row.get_ref(5)?.as_blob_or_null()?);
        if has_expired(row.get(7)?) {
            properties.message_expiry_interval = Some(0);
        } else {
            remaining(&mut properties, row.get(7)?);
        }
        let ids = row.get_ref(6)?.as_blob_or_null()?.unwrap_or_default();
        let message = Message {
            topic: row.get_ref(1)?.as_str()?.into(),
            payload: Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?),
            qos: quality,
            retain: row.get(3)?,
            properties,
            publisher: "".into(),
            commit: u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0),
            received: Instant::now(),
        };
        bytes += weight(&message);
        out.push(Outgoing {
            qos: quality,
            retain: message.retain,
            ids: ids
                .chunks_exact(4)
                .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            message: Arc::new(message),
            q,
            dup: q < old,
        });
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(out)
}
