//! MQTT 5 properties (2.2.2): one typed set for all packets, with the table of which property
//! may stand where.
//!
//! [`Properties`] is one pointer wide and empty without an allocation, because most packets on
//! a gateway carry none. It dereferences to [`PropertySet`]; writing to a field makes the set.

use std::ops::{Deref, DerefMut};

use bytes::{BufMut, Bytes, BytesMut};

use super::CodecError;
use super::packet::PacketType;
use super::topic;
use super::wire::{self, Reader};

/// Every property of the specification. `None` or empty means absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PropertySet {
    /// 0 = bytes, 1 = UTF-8 text.
    pub payload_format_indicator: Option<u8>,
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    /// At most one in SUBSCRIBE; several in a PUBLISH from the server. Never 0.
    pub subscription_ids: Vec<u32>,
    /// Seconds; `u32::MAX` = never.
    pub session_expiry_interval: Option<u32>,
    pub assigned_client_id: Option<String>,
    /// Seconds.
    pub server_keep_alive: Option<u16>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Bytes>,
    pub request_problem_information: Option<bool>,
    /// Seconds.
    pub will_delay_interval: Option<u32>,
    pub request_response_information: Option<bool>,
    pub response_information: Option<String>,
    pub server_reference: Option<String>,
    pub reason_string: Option<String>,
    pub receive_maximum: Option<u16>,
    pub topic_alias_maximum: Option<u16>,
    pub topic_alias: Option<u16>,
    /// 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    pub retain_available: Option<bool>,
    /// In the order they were sent; names may repeat.
    pub user: Vec<(String, String)>,
    /// Bytes.
    pub maximum_packet_size: Option<u32>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
}

static EMPTY: PropertySet = PropertySet {
    payload_format_indicator: None,
    message_expiry_interval: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    subscription_ids: Vec::new(),
    session_expiry_interval: None,
    assigned_client_id: None,
    server_keep_alive: None,
    authentication_method: None,
    authentication_data: None,
    request_problem_information: None,
    will_delay_interval: None,
    request_response_information: None,
    response_information: None,
    server_reference: None,
    reason_string: None,
    receive_maximum: None,
    topic_alias_maximum: None,
    topic_alias: None,
    maximum_qos: None,
    retain_available: None,
    user: Vec::new(),
    maximum_packet_size: None,
    wildcard_subscription_available: None,
    subscription_ids_available: None,
    shared_subscription_available: None,
};

/// The properties of one packet, or of a will.
#[derive(Debug, Clone, Default)]
pub struct Properties(Option<Box<PropertySet>>);

impl Properties {
    /// No property at all.
    pub const NONE: Self = Self(None);

    pub fn is_empty(&self) -> bool {
        self.0.as_deref().is_none_or(|set| *set == EMPTY)
    }
}

impl From<PropertySet> for Properties {
    fn from(set: PropertySet) -> Self {
        Self(Some(Box::new(set)))
    }
}

impl Deref for Properties {
    type Target = PropertySet;
    fn deref(&self) -> &PropertySet {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut PropertySet {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Properties {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Properties {}

/// Where properties stand: in a packet, or before the will in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    In(PacketType),
    Will,
}

impl Place {
    fn bit(self) -> u16 {
        match self {
            Self::In(packet) => 1 << packet as u16,
            Self::Will => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Will => "a will",
            Self::In(PacketType::Connect) => "CONNECT",
            Self::In(PacketType::ConnAck) => "CONNACK",
            Self::In(PacketType::Publish) => "PUBLISH",
            Self::In(PacketType::PubAck) => "PUBACK",
            Self::In(PacketType::PubRec) => "PUBREC",
            Self::In(PacketType::PubRel) => "PUBREL",
            Self::In(PacketType::PubComp) => "PUBCOMP",
            Self::In(PacketType::Subscribe) => "SUBSCRIBE",
            Self::In(PacketType::SubAck) => "SUBACK",
            Self::In(PacketType::Unsubscribe) => "UNSUBSCRIBE",
            Self::In(PacketType::UnsubAck) => "UNSUBACK",
            Self::In(PacketType::PingReq) => "PINGREQ",
            Self::In(PacketType::PingResp) => "PINGRESP",
            Self::In(PacketType::Disconnect) => "DISCONNECT",
            Self::In(PacketType::Auth) => "AUTH",
        }
    }
}

const WILL: u16 = 1;
const CONNECT: u16 = 1 << 1;
const CONNACK: u16 = 1 << 2;
const PUBLISH: u16 = 1 << 3;
const ACKS: u16 = 0b1111 << 4;
const SUBSCRIBE: u16 = 1 << 8;
const SUBACK: u16 = 1 << 9;
const UNSUBSCRIBE: u16 = 1 << 10;
const UNSUBACK: u16 = 1 << 11;
const DISCONNECT: u16 = 1 << 14;
const AUTH: u16 = 1 << 15;

/// How a property's value is read, written and bounded.
enum Kind {
    /// 0 or 1, kept as bool.
    Bool(fn(&mut PropertySet) -> &mut Option<bool>),
    /// 0 or 1, kept as a number.
    Bit(fn(&mut PropertySet) -> &mut Option<u8>),
    U16(fn(&mut PropertySet) -> &mut Option<u16>),
    /// Must not be 0.
    NonZero16(fn(&mut PropertySet) -> &mut Option<u16>),
    U32(fn(&mut PropertySet) -> &mut Option<u32>),
    NonZero32(fn(&mut PropertySet) -> &mut Option<u32>),
    Text(fn(&mut PropertySet) -> &mut Option<String>),
    /// Text that must be a topic name.
    Topic(fn(&mut PropertySet) -> &mut Option<String>),
    Binary(fn(&mut PropertySet) -> &mut Option<Bytes>),
    SubscriptionId,
    User,
}

struct Row {
    id: u8,
    name: &'static str,
    places: u16,
    kind: Kind,
}

const fn row(id: u8, name: &'static str, places: u16, kind: Kind) -> Row {
    Row {
        id,
        name,
        places,
        kind,
    }
}

/// The table of 2.2.2.2.
#[rustfmt::skip]
static TABLE: &[Row] = &[
    row(0x01, "payload format indicator", PUBLISH | WILL, Kind::Bit(|p| &mut p.payload_format_indicator)),
    row(0x02, "message expiry interval", PUBLISH | WILL, Kind::U32(|p| &mut p.message_expiry_interval)),
    row(0x03, "content type", PUBLISH | WILL, Kind::Text(|p| &mut p.content_type)),
    row(0x08, "response topic", PUBLISH | WILL, Kind::Topic(|p| &mut p.response_topic)),
    row(0x09, "correlation data", PUBLISH | WILL, Kind::Binary(|p| &mut p.correlation_data)),
    row(0x0B, "subscription identifier", PUBLISH | SUBSCRIBE, Kind::SubscriptionId),
    row(0x11, "session expiry interval", CONNECT | CONNACK | DISCONNECT, Kind::U32(|p| &mut p.session_expiry_interval)),
    row(0x12, "assigned client identifier", CONNACK, Kind::Text(|p| &mut p.assigned_client_id)),
    row(0x13, "server keep alive", CONNACK, Kind::U16(|p| &mut p.server_keep_alive)),
    row(0x15, "authentication method", CONNECT | CONNACK | AUTH, Kind::Text(|p| &mut p.authentication_method)),
    row(0x16, "authentication data", CONNECT | CONNACK | AUTH, Kind::Binary(|p| &mut p.authentication_data)),
    row(0x17, "request problem information", CONNECT, Kind::Bool(|p| &mut p.request_problem_information)),
    row(0x18, "will delay interval", WILL, Kind::U32(|p| &mut p.will_delay_interval)),
    row(0x19, "request response information", CONNECT, Kind::Bool(|p| &mut p.request_response_information)),
    row(0x1A, "response information", CONNACK, Kind::Text(|p| &mut p.response_information)),
    row(0x1C, "server reference", CONNACK | DISCONNECT, Kind::Text(|p| &mut p.server_reference)),
    row(0x1F, "reason string", CONNACK | ACKS | SUBACK | UNSUBACK | DISCONNECT | AUTH, Kind::Text(|p| &mut p.reason_string)),
    row(0x21, "receive maximum", CONNECT | CONNACK, Kind::NonZero16(|p| &mut p.receive_maximum)),
    row(0x22, "topic alias maximum", CONNECT | CONNACK, Kind::U16(|p| &mut p.topic_alias_maximum)),
    row(0x23, "topic alias", PUBLISH, Kind::NonZero16(|p| &mut p.topic_alias)),
    row(0x24, "maximum QoS", CONNACK, Kind::Bit(|p| &mut p.maximum_qos)),
    row(0x25, "retain available", CONNACK, Kind::Bool(|p| &mut p.retain_available)),
    row(0x26, "user property", WILL | CONNECT | CONNACK | PUBLISH | ACKS | SUBSCRIBE | SUBACK | UNSUBSCRIBE | UNSUBACK | DISCONNECT | AUTH, Kind::User),
    row(0x27, "maximum packet size", CONNECT | CONNACK, Kind::NonZero32(|p| &mut p.maximum_packet_size)),
    row(0x28, "wildcard subscription available", CONNACK, Kind::Bool(|p| &mut p.wildcard_subscription_available)),
    row(0x29, "subscription identifiers available", CONNACK, Kind::Bool(|p| &mut p.subscription_ids_available)),
    row(0x2A, "shared subscription available", CONNACK, Kind::Bool(|p| &mut p.shared_subscription_available)),
];

/// Reads a property length and the properties after it.
pub(super) fn decode(reader: &mut Reader, place: Place) -> Result<Properties, CodecError> {
    let length = reader.varint("property length")? as usize;
    let mut reader = reader.sub(length, "properties")?;
    if reader.is_empty() {
        return Ok(Properties::NONE);
    }
    let mut set = PropertySet::default();
    let mut seen = 0u64;
    while !reader.is_empty() {
        let id = reader.varint("property identifier")?;
        let row = TABLE
            .iter()
            .find(|row| u32::from(row.id) == id)
            .ok_or(CodecError::UnknownProperty(id))?;
        if row.places & place.bit() == 0 {
            return Err(CodecError::PropertyNotAllowed {
                property: row.name,
                place: place.name(),
            });
        }
        let repeatable = match row.kind {
            Kind::User => true,
            Kind::SubscriptionId => place == Place::In(PacketType::Publish),
            _ => false,
        };
        if !repeatable && seen & (1 << row.id) != 0 {
            return Err(CodecError::DuplicateProperty(row.name));
        }
        seen |= 1 << row.id;
        read_value(&mut reader, row, &mut set)?;
    }
    if set.authentication_data.is_some() && set.authentication_method.is_none() {
        return Err(CodecError::AuthDataWithoutMethod);
    }
    Ok(set.into())
}

fn read_value(reader: &mut Reader, row: &Row, set: &mut PropertySet) -> Result<(), CodecError> {
    let bad = |value: u32, allowed| CodecError::PropertyValue {
        property: row.name,
        value,
        allowed,
    };
    match row.kind {
        Kind::Bool(field) => match reader.u8(row.name)? {
            bit @ (0 | 1) => *field(set) = Some(bit == 1),
            other => return Err(bad(other.into(), "0 or 1")),
        },
        Kind::Bit(field) => match reader.u8(row.name)? {
            bit @ (0 | 1) => *field(set) = Some(bit),
            other => return Err(bad(other.into(), "0 or 1")),
        },
        Kind::U16(field) => *field(set) = Some(reader.u16(row.name)?),
        Kind::NonZero16(field) => match reader.u16(row.name)? {
            0 => return Err(bad(0, "1 to 65535")),
            value => *field(set) = Some(value),
        },
        Kind::U32(field) => *field(set) = Some(reader.u32(row.name)?),
        Kind::NonZero32(field) => match reader.u32(row.name)? {
            0 => return Err(bad(0, "1 or more")),
            value => *field(set) = Some(value),
        },
        Kind::Text(field) => *field(set) = Some(reader.text(row.name)?),
        Kind::Topic(field) => {
            let name = reader.text(row.name)?;
            if !topic::valid_name(&name) {
                return Err(CodecError::TopicName(name));
            }
            *field(set) = Some(name);
        }
        Kind::Binary(field) => *field(set) = Some(reader.binary(row.name)?),
        Kind::SubscriptionId => match reader.varint(row.name)? {
            0 => return Err(bad(0, "1 to 268435455")),
            value => set.subscription_ids.push(value),
        },
        Kind::User => {
            let name = reader.text(row.name)?;
            set.user.push((name, reader.text(row.name)?));
        }
    }
    Ok(())
}

/// Writes the property length and the properties, refusing those that have no place here.
pub(super) fn encode(
    properties: &Properties,
    place: Place,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let Some(set) = properties.0.as_deref() else {
        out.put_u8(0);
        return Ok(());
    };
    // The accessors of the table want a mutable set; packets with properties are rare enough
    // for a copy.
    let mut set = set.clone();
    let mut body = BytesMut::new();
    for row in TABLE {
        let before = body.len();
        write_value(row, &mut set, &mut body)?;
        if body.len() != before && row.places & place.bit() == 0 {
            return Err(CodecError::PropertyNotAllowed {
                property: row.name,
                place: place.name(),
            });
        }
    }
    wire::put_varint(out, body.len())?;
    out.extend_from_slice(&body);
    Ok(())
}

fn write_value(row: &Row, set: &mut PropertySet, out: &mut BytesMut) -> Result<(), CodecError> {
    match row.kind {
        Kind::Bool(field) => {
            if let Some(value) = *field(set) {
                out.put_slice(&[row.id, value.into()]);
            }
        }
        Kind::Bit(field) => {
            if let Some(value) = *field(set) {
                out.put_slice(&[row.id, value]);
            }
        }
        Kind::U16(field) | Kind::NonZero16(field) => {
            if let Some(value) = *field(set) {
                out.put_u8(row.id);
                out.put_u16(value);
            }
        }
        Kind::U32(field) | Kind::NonZero32(field) => {
            if let Some(value) = *field(set) {
                out.put_u8(row.id);
                out.put_u32(value);
            }
        }
        Kind::Text(field) | Kind::Topic(field) => {
            if let Some(value) = field(set) {
                out.put_u8(row.id);
                wire::put_binary(out, row.name, value.as_bytes())?;
            }
        }
        Kind::Binary(field) => {
            if let Some(value) = field(set) {
                out.put_u8(row.id);
                wire::put_binary(out, row.name, value)?;
            }
        }
        Kind::SubscriptionId => {
            for &id in &set.subscription_ids {
                out.put_u8(row.id);
                wire::put_varint(out, id as usize)?;
            }
        }
        Kind::User => {
            for (name, value) in &set.user {
                out.put_u8(row.id);
                wire::put_binary(out, row.name, name.as_bytes())?;
                wire::put_binary(out, row.name, value.as_bytes())?;
            }
        }
    }
    Ok(())
}
