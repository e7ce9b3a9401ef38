//! What crosses the router: one message, shared by everybody who gets it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{Properties, QoS};

/// A published message after validation and, if it is durable, commit. The router carries only
/// a reference to it.
#[derive(Debug, Clone)]
pub struct Message {
    /// A valid topic name, aliases resolved.
    pub topic: Arc<str>,
    pub payload: Bytes,
    /// As published; what a subscriber gets is at most its granted QoS.
    pub qos: QoS,
    /// As published, for subscriptions with retain-as-published.
    pub retain: bool,
    /// Those of the PUBLISH that are forwarded.
    pub properties: Properties,
    /// The client that published, for no-local; empty for the broker itself.
    pub publisher: Arc<str>,
    /// The store's commit that holds it; 0 = not stored.
    pub commit: u64,
    /// When it arrived, for message expiry.
    pub received: Instant,
}

impl Message {
    /// A message at QoS 0 from the broker itself; change what differs.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::NONE,
            publisher: Arc::from(""),
            commit: 0,
            received: Instant::now(),
        }
    }
}

/// One message for one link.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message's place in the order of all publishes, from 1. Grows by any step.
    pub seq: u64,
    pub message: Arc<Message>,
    /// Which of the link's filters matched.
    pub matched: Matched,
}

/// The filters of one link that matched a message, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    /// The usual case, without an allocation.
    One(Arc<str>),
    /// Overlapping filters.
    Many(Box<[Arc<str>]>),
}

impl Matched {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(filter) => std::slice::from_ref(filter),
            Self::Many(filters) => filters,
        }
        .iter()
        .map(|filter| &**filter)
    }
}
