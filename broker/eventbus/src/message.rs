//! From a PUBLISH packet to the message that is stored and routed, and what one subscriber gets
//! of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{Properties, PropertySet, Publish, QoS};
pub use crate::router::Message;

/// A payload below this size is copied out of the connection's read buffer, so that a short
/// message kept for long does not keep the whole buffer.
const COPY_BELOW: usize = 16 * 1024;

/// Commit numbers of messages retained in memory only carry this bit: disk and memory count
/// apart, because a message in memory need not wait for the disk.
pub const MEMORY: u64 = 1 << 63;

/// Builds the message of a PUBLISH whose topic alias is resolved.
pub fn from_publish(publish: Publish, topic: Arc<str>, publisher: Arc<str>) -> Message {
    let payload = if publish.payload.len() < COPY_BELOW {
        Bytes::copy_from_slice(&publish.payload)
    } else {
        publish.payload
    };
    Message {
        topic,
        payload,
        qos: publish.qos,
        retain: publish.retain,
        properties: forwarded(&publish.properties),
        publisher,
        commit: 0,
        received: Instant::now(),
    }
}

/// The properties that a server passes on (3.3.2.3).
pub fn forwarded(from: &Properties) -> Properties {
    if from.is_empty() {
        return Properties::NONE;
    }
    let set = PropertySet {
        payload_format_indicator: from.payload_format_indicator,
        message_expiry_interval: from.message_expiry_interval,
        content_type: from.content_type.clone(),
        response_topic: from.response_topic.clone(),
        correlation_data: from.correlation_data.clone(),
        user: from.user.clone(),
        ..PropertySet::default()
    };
    let kept = Properties::from(set);
    if kept.is_empty() {
        Properties::NONE
    } else {
        kept
    }
}

/// What one subscriber gets of a message.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub message: Arc<Message>,
    /// At most the message's and the subscription's.
    pub qos: QoS,
    pub retain: bool,
    /// Subscription identifiers that matched.
    pub ids: Vec<u32>,
    /// Its place in the persistent session's queue; 0 = it is in none.
    pub q: u64,
    /// It may have been sent before.
    pub dup: bool,
}

impl Outgoing {
    /// Bytes that it takes, for quotas.
    pub fn weight(&self) -> usize {
        weight(&self.message)
    }
}

/// Bytes that a message takes, for quotas.
pub fn weight(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + 64
}

/// Seconds left until the message expires: `Err` if it has, `Ok(None)` if it never does.
pub fn left(message: &Message) -> Result<Option<u32>, Expired> {
    let Some(interval) = message.properties.message_expiry_interval else {
        return Ok(None);
    };
    let age = message.received.elapsed();
    if age >= Duration::from_secs(interval.into()) {
        return Err(Expired);
    }
    let passed = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    Ok(Some(interval.saturating_sub(passed)))
}

/// The message's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
