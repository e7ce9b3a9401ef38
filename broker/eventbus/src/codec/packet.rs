//! The packets of MQTT 3.1.1 and 5 as values.
//!
//! One set of types serves both versions: what only MQTT 5 has ([`Properties`], reason codes
//! of acknowledgements) is empty or `Success` under 3.1.1 and left out when it is written.

use bytes::Bytes;

use super::CodecError;
use super::properties::Properties;
use super::reason::ReasonCode;

/// The protocol level of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0.
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    pub fn from_u8(value: u8) -> Result<Self, CodecError> {
        match value {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(CodecError::QoS3),
        }
    }

    /// The SUBACK code that grants it.
    pub fn granted(self) -> ReasonCode {
        match self {
            Self::AtMostOnce => ReasonCode::GRANTED_QOS_0,
            Self::AtLeastOnce => ReasonCode::GrantedQoS1,
            Self::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }
}

/// The control packet types, with their values in the fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    pub const ALL: [PacketType; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type in the upper half of the first byte; 0 is reserved.
    pub fn from_nibble(nibble: u8) -> Option<Self> {
        usize::from(nibble)
            .checked_sub(1)
            .and_then(|i| Self::ALL.get(i).copied())
    }
}

/// One control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    /// "Clean session" in 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0 = off.
    pub keep_alive: u16,
    pub properties: Properties,
    /// May be empty; whether that is acceptable is the front's decision.
    pub client_id: String,
    pub will: Option<Will>,
    pub username: Option<String>,
    pub password: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub qos: QoS,
    pub retain: bool,
    pub properties: Properties,
    pub topic: String,
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    pub session_present: bool,
    /// Written as the nearest return code under 3.1.1.
    pub reason: ReasonCode,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only in MQTT 5 with a topic alias.
    pub topic: String,
    /// 0 at QoS 0, never otherwise.
    pub packet_id: u16,
    pub properties: Properties,
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP have one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub packet_id: u16,
    pub reason: ReasonCode,
    pub properties: Properties,
}

impl Ack {
    pub fn new(packet_id: u16, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: Properties::default(),
        }
    }

    pub fn ok(packet_id: u16) -> Self {
        Self::new(packet_id, ReasonCode::Success)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: u16,
    pub properties: Properties,
    pub filters: Vec<Subscription>,
}

/// One topic filter of a SUBSCRIBE with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// As sent, `$share/{group}/` included: see [`super::topic::shared`].
    pub filter: String,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// Which retained messages a subscription gets when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    pub packet_id: u16,
    pub properties: Properties,
    /// One for each filter; any error is 0x80 under 3.1.1.
    pub reasons: Vec<ReasonCode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: u16,
    pub properties: Properties,
    pub filters: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    pub packet_id: u16,
    pub properties: Properties,
    /// One for each filter; not sent under 3.1.1.
    pub reasons: Vec<ReasonCode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: ReasonCode,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub reason: ReasonCode,
    pub properties: Properties,
}

impl Packet {
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// What [`super::decode`] cannot know: it serves both directions. A server calls this on
    /// each packet of a client.
    pub fn check_from_client(&self) -> Result<(), CodecError> {
        let what = match self {
            Self::ConnAck(_) => "CONNACK",
            Self::SubAck(_) => "SUBACK",
            Self::UnsubAck(_) => "UNSUBACK",
            Self::PingResp => "PINGRESP",
            Self::Publish(p) if !p.properties.subscription_ids.is_empty() => {
                "a subscription identifier in PUBLISH"
            }
            Self::Disconnect(d) if d.properties.server_reference.is_some() => {
                "a server reference in DISCONNECT"
            }
            _ => return Ok(()),
        };
        Err(CodecError::NotFromClient { what })
    }
}

impl Publish {
    /// False if the payload is declared as text and is not UTF-8: answer
    /// [`ReasonCode::PayloadFormatInvalid`]. Not checked while decoding, because one bad
    /// message need not cost the publisher its connection.
    pub fn payload_is_as_declared(&self) -> bool {
        self.properties.payload_format_indicator != Some(1)
            || std::str::from_utf8(&self.payload).is_ok()
    }
}
