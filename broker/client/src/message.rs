//! One message, on its way out or in.

use crate::error::{Error, Result};
use bytes::Bytes;
use edgebus_bus::table::{self, Durability, Retain};
use edgebus_bus::{Topic, filter, limits, payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message with its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its bytes; a retained message without any clears the topic.
    pub payload: Bytes,
    /// Outgoing: to be retained. Incoming: it was retained before we subscribed.
    pub retain: bool,
    /// 0 or 1.
    pub qos: u8,
}

impl Message {
    /// A message as the table wants it on that topic: retained if it is state, with its QoS. On
    /// topics where the retain flag is free (`app/…`) it is not set.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Result<Self> {
        let (topic, payload) = (topic.into(), payload.into());
        let row = table::lookup(&topic).ok_or_else(|| Error::BadTopic {
            topic: topic.clone(),
            why: "it is not in the topic table; free topics live under app/".into(),
        })?;
        let message = Self {
            retain: row.retain == Retain::Always,
            qos: row.qos,
            topic,
            payload,
        };
        message.check()?;
        Ok(message)
    }

    /// A JSON message, as the table wants it on that topic.
    pub fn json<T: Serialize>(topic: &Topic, value: &T) -> Result<Self> {
        let row = topic.row();
        let message = Self {
            topic: topic.to_string(),
            payload: payload::write(value).into(),
            retain: row.retain == Retain::Always,
            qos: row.qos,
        };
        message.check()?;
        Ok(message)
    }

    /// The message that clears a retained topic.
    pub fn clear(topic: &Topic) -> Self {
        Self {
            topic: topic.to_string(),
            payload: Bytes::new(),
            retain: true,
            qos: 1,
        }
    }

    /// Refused here with a better text than the broker could give.
    pub(crate) fn check(&self) -> Result<()> {
        if self.payload.len() > limits::PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                topic: self.topic.clone(),
                bytes: self.payload.len(),
                max: limits::PAYLOAD_BYTES,
            });
        }
        filter::check_name(&self.topic).map_err(|e| Error::BadTopic {
            topic: self.topic.clone(),
            why: e.to_string(),
        })
    }

    /// Is it state that nobody keeps for us, so that we say it again at each connect?
    pub(crate) fn is_own(&self) -> bool {
        self.retain
            && table::lookup(&self.topic)
                .is_some_and(|r| r.retain == Retain::Always && r.durability == Durability::None)
    }

    /// The payload as JSON.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        payload::read(&self.payload).map_err(|source| Error::Payload {
            topic: self.topic.clone(),
            source,
        })
    }

    /// The topic, if it is one of the `edge/v1` tree.
    pub fn parsed(&self) -> Option<Topic> {
        Topic::parse(&self.topic).ok()
    }
}
