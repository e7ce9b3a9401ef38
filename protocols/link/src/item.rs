//! What travels: one object, and the sizes it may have.

use bytes::Bytes;
use thiserror::Error;

use crate::Hash;
use crate::frame::limits;

/// One object as it should be at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub uid: String,
    /// What tells versions apart; see [`Hash`].
    pub hash: Hash,
    pub body: Bytes,
}

/// Why an item cannot travel.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{topic}: {what} has {size} bytes, allowed are {allowed}")]
pub struct TooLarge {
    pub topic: String,
    pub what: &'static str,
    pub size: usize,
    pub allowed: usize,
}

pub(crate) fn check(topic: &str, item: &Item) -> Result<(), TooLarge> {
    let body_bytes = limits::FRAME_BYTES - limits::TOPIC_BYTES - limits::UID_BYTES - 256;
    for (what, size, allowed) in [
        ("the topic", topic.len(), limits::TOPIC_BYTES),
        ("the uid", item.uid.len(), limits::UID_BYTES),
        ("the body", item.body.len(), body_bytes),
    ] {
        if size > allowed {
            let topic = topic.chars().take(120).collect();
            return Err(TooLarge {
                topic,
                what,
                size,
                allowed,
            });
        }
    }
    Ok(())
}
