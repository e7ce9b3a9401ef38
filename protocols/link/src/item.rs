//! What travels: one object, the sizes it may have, and how its journey ends.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::frame::limits;
use crate::{Code, Hash, Kind};

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

/// How a frame that was in flight ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The other end has it.
    Settled { kind: Kind, topic: Arc<str> },
    /// The other end will never take these bytes.
    Rejected {
        kind: Kind,
        topic: Arc<str>,
        code: Code,
        why: String,
    },
    /// It will be sent again later.
    Delayed {
        kind: Kind,
        topic: Arc<str>,
        code: Code,
        why: String,
    },
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
