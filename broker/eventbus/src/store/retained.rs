//! Retained messages on disk: put, clear, and pages of those that match a filter.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::time::Instant;

use super::Page;
use crate::codec::{self, Packet, Properties, Publish, QoS, Version, topic};
use crate::message::{Message, now_ms, weight};

/// Bounds of one page, and of the rows that one query walks through to fill it.
const PAGE_MESSAGES: usize = 64;
const PAGE_BYTES: usize = 256 * 1024;
const SCANNED: usize = 1024;

/// Greater than every topic that begins with the prefix before it.
const LAST: char = '\u{10FFFF}';

pub(super) fn put(db: &Connection, message: &Message, n: u64) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO retained(topic, n, qos, payload, props, expires_ms)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT(topic) DO UPDATE SET n=excluded.n, qos=excluded.qos,
             payload=excluded.payload, props=excluded.props, expires_ms=excluded.expires_ms",
    )?;
    statement.execute(params![
        &*message.topic,
        n as i64,
        message.qos as u8,
        &message.payload[..],
        props_blob(&message.properties),
        expires_ms(message),
    ])?;
    Ok(())
}

pub(super) fn clear(db: &Connection, topic: &str) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM retained WHERE topic=?1")?;
    statement.execute([topic])?;
    Ok(())
}

/// Bytes that the retained message of a topic takes towards a quota.
pub(super) fn size(db: &Connection, topic: &str) -> rusqlite::Result<usize> {
    let mut statement =
        db.prepare_cached("SELECT length(topic)+length(payload) FROM retained WHERE topic=?1")?;
    let size: Option<i64> = statement.query_row([topic], |r| r.get(0)).optional()?;
    Ok(size.and_then(|s| usize::try_from(s).ok()).unwrap_or(0))
}

pub(super) fn app_bytes(db: &Connection) -> rusqlite::Result<usize> {
    let sum: Option<i64> = db.query_row(
        "SELECT sum(length(topic)+length(payload)) FROM retained
         WHERE topic>='app/' AND topic<'app0'",
        [],
        |r| r.get(0),
    )?;
    Ok(sum.and_then(|s| usize::try_from(s).ok()).unwrap_or(0))
}

/// The next page of matches after a topic. A page may be empty and not the last.
pub(super) fn page(db: &Connection, filter: &str, after: Option<&str>) -> rusqlite::Result<Page> {
    let prefix = literal_prefix(filter);
    let mut statement = db.prepare_cached(
        "SELECT topic, n, qos, payload, props, expires_ms FROM retained
         WHERE topic>=?1 AND topic>?2 AND topic<=?3 ORDER BY topic LIMIT ?4",
    )?;
    let upper = format!("{prefix}{LAST}");
    let mut rows = statement.query(params![
        prefix,
        after.unwrap_or_default(),
        upper,
        SCANNED as i64
    ])?;
    let (mut page, mut bytes, mut scanned) = (Page::default(), 0, 0);
    while let Some(row) = rows.next()? {
        scanned += 1;
        let name = row.get_ref(0)?.as_str()?;
        if topic::matches(filter, name) && !has_expired(row.get(5)?) {
            let message = retained(row)?;
            bytes += weight(&message);
            page.messages.push(Arc::new(message));
        }
        if scanned == SCANNED || page.messages.len() >= PAGE_MESSAGES || bytes >= PAGE_BYTES {
            page.next = Some(name.into());
            break;
        }
    }
    Ok(page)
}

/// The part of a filter that every matching topic begins with.
pub(crate) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        // `a/#` also matches `a`.
        Some(at) => filter[..at].strip_suffix('/').unwrap_or(&filter[..at]),
        None => filter,
    }
}

fn retained(row: &Row<'_>) -> rusqlite::Result<Message> {
    let n: i64 = row.get(1)?;
    let mut properties = read_props(row.get_ref(4)?.as_blob_or_null()?);
    remaining(&mut properties, row.get(5)?);
    Ok(Message {
        topic: row.get_ref(0)?.as_str()?.into(),
        payload: Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?),
        qos: qos(row.get(2)?),
        retain: true,
        properties,
        publisher: "".into(),
        commit: u64::try_from(n).unwrap_or(0),
        received: Instant::now(),
    })
}

pub(super) fn qos(value: u8) -> QoS {
    QoS::from_u8(value).unwrap_or(QoS::AtLeastOnce)
}

pub(super) fn has_expired(expires_ms: Option<i64>) -> bool {
    expires_ms.is_some_and(|at| u64::try_from(at).unwrap_or(0) <= now_ms())
}

/// Sets the expiry to what is left of it, counted from now.
pub(super) fn remaining(properties: &mut Properties, expires_ms: Option<i64>) {
    if let Some(at) = expires_ms.and_then(|at| u64::try_from(at).ok()) {
        let left = Duration::from_millis(at.saturating_sub(now_ms())).as_secs();
        properties.message_expiry_interval = Some(u32::try_from(left).unwrap_or(u32::MAX).max(1));
    }
}

pub(super) fn expires_ms(message: &Message) -> Option<i64> {
    let interval = message.properties.message_expiry_interval?;
    i64::try_from(now_ms() + u64::from(interval) * 1000).ok()
}

/// Properties travel to disk as the MQTT 5 packet that carries them.
pub(super) fn props_blob(properties: &Properties) -> Option<Vec<u8>> {
    if properties.is_empty() {
        return None;
    }
    let packet = Packet::Publish(Publish {
        topic: "p".to_owned(),
        properties: properties.clone(),
        ..Publish::default()
    });
    let mut out = BytesMut::new();
    match codec::encode(&packet, Version::V5, &mut out) {
        Ok(()) => Some(out.to_vec()),
        Err(error) => {
            tracing::warn!(%error, "the properties of a message cannot be stored");
            None
        }
    }
}

pub(super) fn read_props(blob: Option<&[u8]>) -> Properties {
    let Some(blob) = blob else {
        return Properties::NONE;
    };
    let mut bytes = BytesMut::from(blob);
    match codec::decode(&mut bytes, Some(Version::V5), usize::MAX) {
        Ok(Some(Packet::Publish(p))) => p.properties,
        _ => Properties::NONE,
    }
}

pub(super) fn sweep(db: &Connection) -> rusqlite::Result<()> {
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    for table in ["retained", "queue"] {
        let sql = format!("DELETE FROM {table} WHERE expires_ms IS NOT NULL AND expires_ms<=?1");
        db.execute(&sql, [now])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_before_the_first_wildcard() {
        for (filter, prefix) in [
            ("a/b", "a/b"),
            ("a/#", "a"),
            ("a/+/c", "a"),
            ("#", ""),
            ("+/x", ""),
            ("/+", ""),
        ] {
            assert_eq!(literal_prefix(filter), prefix, "{filter}");
        }
    }

    #[test]
    fn properties_come_back_from_disk() {
        let mut properties = Properties::NONE;
        assert_eq!(props_blob(&properties), None);
        properties.content_type = Some("text/plain".into());
        properties.user.push(("k".into(), "v".into()));
        let blob = props_blob(&properties);
        assert_eq!(read_props(blob.as_deref()), properties);
    }
}
