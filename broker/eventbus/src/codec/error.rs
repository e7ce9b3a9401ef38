//! What can be wrong with one MQTT packet, said so that the peer's author can mend it.
//!
//! Every variant maps to the MQTT 5 reason code that CONNACK or DISCONNECT carries back
//! ([`CodecError::reason`]); for 3.1.1 the connection is simply closed, except after
//! [`CodecError::UnsupportedProtocol`], which is answered with a CONNACK.

use super::packet::{PacketType, Version};
use super::reason::ReasonCode;

/// Why bytes are not an MQTT packet, or a packet cannot be written as bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// CONNECT names a protocol or level that we do not speak; answer with a CONNACK of
    /// [`CodecError::answer_version`].
    #[error("protocol {name:?} level {level} is not supported: MQTT level 4 (3.1.1) or 5 is")]
    UnsupportedProtocol { name: String, level: u8 },
    #[error("the first packet is {0:?}: it must be CONNECT")]
    ConnectExpected(PacketType),
    #[error("packet type 0 is reserved")]
    ReservedType,
    #[error("AUTH does not exist in MQTT 3.1.1")]
    AuthInV4,
    #[error("the flags of {packet:?} are {flags:#06b}: they must be {want:#06b}")]
    Flags {
        packet: PacketType,
        flags: u8,
        want: u8,
    },
    #[error("the remaining length takes more than 4 bytes")]
    LengthTooLong,
    #[error("a length is not written in its shortest form")]
    LengthNotMinimal,
    #[error("the packet has {size} bytes: at most {max} are allowed")]
    TooLarge { size: usize, max: usize },
    #[error("{packet:?} ends inside {field}")]
    Short {
        packet: PacketType,
        field: &'static str,
    },
    #[error("{packet:?} has {count} bytes after its end")]
    Trailing { packet: PacketType, count: usize },
    #[error("{field} is not UTF-8")]
    NotUtf8 { field: &'static str },
    #[error("{field} contains U+0000")]
    Nul { field: &'static str },
    #[error("{field} has {size} bytes: at most 65535 fit")]
    FieldTooLong { field: &'static str, size: usize },
    #[error("the CONNECT flags {flags:#010b} are not allowed: {why}")]
    ConnectFlags { flags: u8, why: &'static str },
    #[error("the CONNACK flags are {0:#010b}: only bit 0 may be set")]
    ConnAckFlags(u8),
    #[error("QoS 3 does not exist")]
    QoS3,
    #[error("a QoS 0 PUBLISH has the DUP flag")]
    DupAtQoS0,
    #[error("{0:?} has the packet identifier 0")]
    PacketIdZero(PacketType),
    #[error("the topic name {0:?} is empty, too long or has a wildcard")]
    TopicName(String),
    #[error("the topic filter {0:?} is malformed")]
    TopicFilter(String),
    #[error("the subscription options {options:#010b} are not allowed: {why}")]
    SubscribeOptions { options: u8, why: &'static str },
    #[error("{0:?} names no topic filter or reason code")]
    NoEntries(PacketType),
    #[error("property {0:#04x} does not exist")]
    UnknownProperty(u32),
    #[error("property {property} is not allowed in {place}")]
    PropertyNotAllowed {
        property: &'static str,
        place: &'static str,
    },
    #[error("property {0} stands twice")]
    DuplicateProperty(&'static str),
    #[error("property {property} has the value {value}: it must be {allowed}")]
    PropertyValue {
        property: &'static str,
        value: u32,
        allowed: &'static str,
    },
    #[error("authentication data without an authentication method")]
    AuthDataWithoutMethod,
    #[error("reason code {code:#04x} is not allowed in {packet:?}")]
    Reason { packet: PacketType, code: u8 },
    #[error("{what} may not come from a client")]
    NotFromClient { what: &'static str },
}

impl CodecError {
    /// The MQTT 5 reason code that tells the peer.
    pub fn reason(&self) -> ReasonCode {
        use CodecError as E;
        match self {
            E::UnsupportedProtocol { .. } => ReasonCode::UnsupportedProtocolVersion,
            E::TooLarge { .. } => ReasonCode::PacketTooLarge,
            E::TopicName(_) => ReasonCode::TopicNameInvalid,
            E::TopicFilter(_) => ReasonCode::TopicFilterInvalid,
            E::PropertyValue {
                property: "topic alias",
                ..
            } => ReasonCode::TopicAliasInvalid,
            E::ConnectExpected(_)
            | E::PacketIdZero(_)
            | E::NoEntries(_)
            | E::PropertyNotAllowed { .. }
            | E::DuplicateProperty(_)
            | E::PropertyValue { .. }
            | E::AuthDataWithoutMethod
            | E::NotFromClient { .. }
            | E::SubscribeOptions { .. }
            | E::AuthInV4 => ReasonCode::ProtocolError,
            _ => ReasonCode::MalformedPacket,
        }
    }

    /// For [`CodecError::UnsupportedProtocol`]: in which version the refusing CONNACK is
    /// written (0x01 in 3.1.1, 0x84 in 5). A peer older than 5 cannot read the newer form.
    /// The highest bit of the level is mosquitto's mark of a bridge.
    pub fn answer_version(&self) -> Option<Version> {
        match self {
            Self::UnsupportedProtocol { level, .. } if level & 0x7f >= 5 => Some(Version::V5),
            Self::UnsupportedProtocol { .. } => Some(Version::V4),
            _ => None,
        }
    }
}
