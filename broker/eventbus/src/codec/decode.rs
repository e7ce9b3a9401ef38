//! Bytes to packets.

use bytes::{Buf, BytesMut};

use super::CodecError;
use super::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, QoS, RetainHandling,
    SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version, Will,
};
use super::properties::{self, Place, Properties};
use super::reason::ReasonCode;
use super::topic;
use super::wire::{self, Reader};

/// Takes one packet from the front of `buf`.
///
/// `version` is that of the connection; `None` until its CONNECT was read, which is then the
/// only packet allowed. `max_packet` bounds the whole packet, fixed header included, and is
/// checked before the rest has arrived. `Ok(None)` means that more bytes are needed; after an
/// error the buffer is of no further use. Payloads share the buffer's memory.
pub fn decode(
    buf: &mut BytesMut,
    version: Option<Version>,
    max_packet: usize,
) -> Result<Option<Packet>, CodecError> {
    let Some(&first) = buf.first() else {
        return Ok(None);
    };
    let packet = PacketType::from_nibble(first >> 4).ok_or(CodecError::ReservedType)?;
    let flags = first & 0x0f;
    check_header(packet, flags, version)?;
    let Some((length, used)) = wire::varint(&buf[1..])? else {
        return Ok(None);
    };
    let header = 1 + used;
    let size = header + length as usize;
    if size > max_packet {
        return Err(CodecError::TooLarge {
            size,
            max: max_packet,
        });
    }
    if buf.len() < size {
        return Ok(None);
    }
    let mut frame = buf.split_to(size);
    frame.advance(header);
    let reader = Reader::new(packet, frame.freeze());
    body(reader, flags, version.unwrap_or(Version::V4)).map(Some)
}

fn check_header(packet: PacketType, flags: u8, version: Option<Version>) -> Result<(), CodecError> {
    if version.is_none() && packet != PacketType::Connect {
        return Err(CodecError::ConnectExpected(packet));
    }
    if packet == PacketType::Auth && version == Some(Version::V4) {
        return Err(CodecError::AuthInV4);
    }
    let want = fixed_flags(packet);
    match want {
        Some(want) if flags != want => Err(CodecError::Flags {
            packet,
            flags,
            want,
        }),
        _ => Ok(()),
    }
}

/// The reserved flags of 2.1.3; `None` for PUBLISH, whose flags carry meaning.
pub(super) fn fixed_flags(packet: PacketType) -> Option<u8> {
    match packet {
        PacketType::Publish => None,
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => Some(0b0010),
        _ => Some(0),
    }
}

fn body(mut r: Reader, flags: u8, version: Version) -> Result<Packet, CodecError> {
    let packet = r.packet();
    let decoded = match packet {
        PacketType::Connect => Packet::Connect(Box::new(connect(&mut r)?)),
        PacketType::ConnAck => Packet::ConnAck(connack(&mut r, version)?),
        PacketType::Publish => Packet::Publish(publish(&mut r, flags, version)?),
        PacketType::PubAck => Packet::PubAck(ack(&mut r, version)?),
        PacketType::PubRec => Packet::PubRec(ack(&mut r, version)?),
        PacketType::PubRel => Packet::PubRel(ack(&mut r, version)?),
        PacketType::PubComp => Packet::PubComp(ack(&mut r, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(&mut r, version)?),
        PacketType::SubAck => Packet::SubAck(suback(&mut r, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(&mut r, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(unsuback(&mut r, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => {
            let (reason, properties) = reason_and_properties(&mut r, version)?;
            Packet::Disconnect(Disconnect { reason, properties })
        }
        PacketType::Auth => {
            let (reason, properties) = reason_and_properties(&mut r, version)?;
            Packet::Auth(Auth { reason, properties })
        }
    };
    r.end()?;
    Ok(decoded)
}

fn props(r: &mut Reader, version: Version) -> Result<Properties, CodecError> {
    match version {
        Version::V4 => Ok(Properties::NONE),
        Version::V5 => {
            let place = Place::In(r.packet());
            properties::decode(r, place)
        }
    }
}

fn connect(r: &mut Reader) -> Result<Connect, CodecError> {
    let version = protocol(r)?;
    let flags = r.u8("the connect flags")?;
    let refuse = |why| CodecError::ConnectFlags { flags, why };
    let has = |bit: u8| flags & bit != 0;
    if has(0x01) {
        return Err(refuse("bit 0 is reserved"));
    }
    let will_qos = QoS::from_u8((flags >> 3) & 0b11)?;
    if !has(0x04) && flags & 0b0011_1000 != 0 {
        return Err(refuse("will QoS or will retain without a will"));
    }
    if version == Version::V4 && has(0x40) && !has(0x80) {
        return Err(refuse("a password without a user name"));
    }
    let keep_alive = r.u16("the keep alive")?;
    let properties = props(r, version)?;
    let client_id = r.text("the client identifier")?;
    let will = if has(0x04) {
        let properties = match version {
            Version::V4 => Properties::NONE,
            Version::V5 => properties::decode(r, Place::Will)?,
        };
        let topic = r.text("the will topic")?;
        if !topic::valid_name(&topic) {
            return Err(CodecError::TopicName(topic));
        }
        Some(Will {
            qos: will_qos,
            retain: has(0x20),
            properties,
            topic,
            payload: r.binary("the will payload")?,
        })
    } else {
        None
    };
    let username = has(0x80).then(|| r.text("the user name")).transpose()?;
    let password = has(0x40).then(|| r.binary("the password")).transpose()?;
    Ok(Connect {
        version,
        clean_start: has(0x02),
        keep_alive,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

/// Protocol name and level. MQIsdp (3.1) and mosquitto's bridge levels (0x84) are told apart
/// from garbage only by their level: all get the same answer.
fn protocol(r: &mut Reader) -> Result<Version, CodecError> {
    let name = r.binary("the protocol name")?;
    let level = r.u8("the protocol level")?;
    match (&name[..], level) {
        (b"MQTT", 4) => Ok(Version::V4),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(CodecError::UnsupportedProtocol {
            name: String::from_utf8_lossy(&name[..name.len().min(16)]).into_owned(),
            level,
        }),
    }
}

fn connack(r: &mut Reader, version: Version) -> Result<ConnAck, CodecError> {
    let flags = r.u8("the connack flags")?;
    if flags > 1 {
        return Err(CodecError::ConnAckFlags(flags));
    }
    let reason = match version {
        Version::V5 => reason(r)?,
        Version::V4 => {
            let code = r.u8("the return code")?;
            ReasonCode::from_v4_connack(code).ok_or(CodecError::Reason {
                packet: PacketType::ConnAck,
                code,
            })?
        }
    };
    Ok(ConnAck {
        session_present: flags == 1,
        reason,
        properties: props(r, version)?,
    })
}

fn publish(r: &mut Reader, flags: u8, version: Version) -> Result<Publish, CodecError> {
    let qos = QoS::from_u8((flags >> 1) & 0b11)?;
    let dup = flags & 0b1000 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(CodecError::DupAtQoS0);
    }
    let topic = r.text("the topic name")?;
    let packet_id = match qos {
        QoS::AtMostOnce => 0,
        _ => r.packet_id()?,
    };
    let properties = props(r, version)?;
    let aliased = topic.is_empty() && properties.topic_alias.is_some();
    if !aliased && !topic::valid_name(&topic) {
        return Err(CodecError::TopicName(topic));
    }
    Ok(Publish {
        dup,
        qos,
        retain: flags & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: r.rest(),
    })
}

fn ack(r: &mut Reader, version: Version) -> Result<Ack, CodecError> {
    let packet_id = r.packet_id()?;
    let (reason, properties) = reason_and_properties(r, version)?;
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

/// Reason code and properties, each of which may be left out at the end (3.4.2.1).
fn reason_and_properties(
    r: &mut Reader,
    version: Version,
) -> Result<(ReasonCode, Properties), CodecError> {
    if version == Version::V4 || r.is_empty() {
        return Ok((ReasonCode::Success, Properties::NONE));
    }
    let reason = reason(r)?;
    if r.is_empty() {
        return Ok((reason, Properties::NONE));
    }
    Ok((reason, props(r, version)?))
}

fn reason(r: &mut Reader) -> Result<ReasonCode, CodecError> {
    let packet = r.packet();
    let code = r.u8("the reason code")?;
    ReasonCode::from_u8(code)
        .filter(|reason| reason.allowed_in(packet))
        .ok_or(CodecError::Reason { packet, code })
}

fn subscribe(r: &mut Reader, version: Version) -> Result<Subscribe, CodecError> {
    let packet_id = r.packet_id()?;
    let properties = props(r, version)?;
    let mut filters = Vec::new();
    while !r.is_empty() {
        let filter = filter(r)?;
        let options = r.u8("the subscription options")?;
        filters.push(subscription(filter, options, version)?);
    }
    if filters.is_empty() {
        return Err(CodecError::NoEntries(PacketType::Subscribe));
    }
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

fn subscription(filter: String, options: u8, version: Version) -> Result<Subscription, CodecError> {
    let refuse = |why| CodecError::SubscribeOptions { options, why };
    let reserved = match version {
        Version::V4 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if options & reserved != 0 {
        return Err(refuse("reserved bits are set"));
    }
    let qos = QoS::from_u8(options & 0b11)?;
    let no_local = options & 0b100 != 0;
    if no_local && topic::is_shared(&filter) {
        return Err(refuse("no local on a shared subscription"));
    }
    let retain_handling = match (options >> 4) & 0b11 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(refuse("retain handling 3 does not exist")),
    };
    Ok(Subscription {
        filter,
        qos,
        no_local,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

fn filter(r: &mut Reader) -> Result<String, CodecError> {
    let filter = r.text("the topic filter")?;
    if topic::valid_filter(&filter) {
        Ok(filter)
    } else {
        Err(CodecError::TopicFilter(filter))
    }
}

fn suback(r: &mut Reader, version: Version) -> Result<SubAck, CodecError> {
    let packet_id = r.packet_id()?;
    let properties = props(r, version)?;
    let mut reasons = Vec::with_capacity(r.len());
    while !r.is_empty() {
        reasons.push(match version {
            Version::V5 => reason(r)?,
            Version::V4 => match r.u8("the return code")? {
                0 => ReasonCode::GRANTED_QOS_0,
                1 => ReasonCode::GrantedQoS1,
                2 => ReasonCode::GrantedQoS2,
                0x80 => ReasonCode::UnspecifiedError,
                code => {
                    return Err(CodecError::Reason {
                        packet: PacketType::SubAck,
                        code,
                    });
                }
            },
        });
    }
    if reasons.is_empty() {
        return Err(CodecError::NoEntries(PacketType::SubAck));
    }
    Ok(SubAck {
        packet_id,
        properties,
        reasons,
    })
}

fn unsubscribe(r: &mut Reader, version: Version) -> Result<Unsubscribe, CodecError> {
    let packet_id = r.packet_id()?;
    let properties = props(r, version)?;
    let mut filters = Vec::new();
    while !r.is_empty() {
        filters.push(filter(r)?);
    }
    if filters.is_empty() {
        return Err(CodecError::NoEntries(PacketType::Unsubscribe));
    }
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

fn unsuback(r: &mut Reader, version: Version) -> Result<UnsubAck, CodecError> {
    let packet_id = r.packet_id()?;
    let properties = props(r, version)?;
    let mut reasons = Vec::new();
    if version == Version::V5 {
        while !r.is_empty() {
            reasons.push(reason(r)?);
        }
        if reasons.is_empty() {
            return Err(CodecError::NoEntries(PacketType::UnsubAck));
        }
    }
    Ok(UnsubAck {
        packet_id,
        properties,
        reasons,
    })
}
