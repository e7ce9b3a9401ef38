//! What can go wrong for a process on the bus, and whether trying again can help.

use std::fmt;
use std::time::Duration;

/// Result of an operation on the bus.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something on the bus did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker refused a message.
    #[error("the broker refused {topic:?}: {code}{}", said(.reason))]
    Refused {
        /// Its topic.
        topic: String,
        /// MQTT's reason code.
        code: Code,
        /// The broker's own words.
        reason: Option<String>,
    },
    /// The broker refused a subscription.
    #[error("the broker refused the filter {filter:?}: {code}{}", said(.reason))]
    SubscribeRefused {
        /// The filter.
        filter: String,
        /// MQTT's reason code.
        code: Code,
        /// The broker's own words.
        reason: Option<String>,
    },
    /// The broker refused the connection.
    #[error("the broker at {address} refused {name:?}: {code}")]
    ConnectRefused {
        /// Where the broker is.
        address: String,
        /// As whom.
        name: String,
        /// MQTT's reason code.
        code: Code,
    },
    /// The broker could not be reached in the time given.
    #[error("no connection to the bus at {address} within {waited:?}: {last}")]
    NotConnected {
        /// Where the broker should be.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// Nobody answered in the time given.
    #[error("no answer on {topic:?} within {waited:?}")]
    NoAnswer {
        /// Where the answer was expected.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The payload is larger than the bus carries.
    #[error("payload for {topic:?} has {bytes} bytes; the largest is {max}")]
    TooLarge {
        /// Its topic.
        topic: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It is not a topic that can be published to.
    #[error("{topic:?} cannot be published to: {why}")]
    BadTopic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// A payload that is not what the topic promises.
    #[error("payload on {topic:?} is not as it should be: {source}")]
    Payload {
        /// The topic.
        topic: String,
        /// Where it does not fit.
        #[source]
        source: edgebus_bus::payload::PayloadError,
    },
    /// The connection to the bus has been closed by its owner.
    #[error("the connection to the bus is closed")]
    Closed,
}

impl Error {
    /// Can the same be tried again later, unchanged, with any hope?
    pub fn can_retry(&self) -> bool {
        match self {
            Error::Refused { code, .. } | Error::SubscribeRefused { code, .. } => code.passing(),
            Error::ConnectRefused { code, .. } => code.passing(),
            Error::NotConnected { .. } | Error::NoAnswer { .. } => true,
            Error::TooLarge { .. }
            | Error::BadTopic { .. }
            | Error::Payload { .. }
            | Error::Closed => false,
        }
    }
}

fn said(reason: &Option<String>) -> String {
    reason
        .as_ref()
        .map(|r| format!(" ({r})"))
        .unwrap_or_default()
}

/// A reason code of MQTT 5.0 §2.4, as far as brokers refuse with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The role may not do that.
    NotAuthorized,
    /// Unknown user, or wrong token.
    BadUserNameOrPassword,
    /// A queue or store is full for now.
    QuotaExceeded,
    /// The topic or filter is malformed or not of this broker.
    TopicInvalid,
    /// The payload is not what the topic wants.
    PayloadFormatInvalid,
    /// The broker has no time for anybody now.
    Busy,
    /// Anything else.
    Unspecified,
}

impl Code {
    /// Is it a matter of time?
    pub fn passing(self) -> bool {
        matches!(self, Code::QuotaExceeded | Code::Busy | Code::Unspecified)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::NotAuthorized => "not authorized",
            Code::BadUserNameOrPassword => "bad user name or password",
            Code::QuotaExceeded => "quota exceeded",
            Code::TopicInvalid => "topic invalid",
            Code::PayloadFormatInvalid => "payload invalid",
            Code::Busy => "broker busy",
            Code::Unspecified => "unspecified error",
        })
    }
}
