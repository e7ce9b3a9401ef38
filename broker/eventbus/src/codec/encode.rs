//! Packets to bytes.

use bytes::{BufMut, BytesMut};

use super::CodecError;
use super::decode::fixed_flags;
use super::packet::{Connect, Packet, Publish, Subscription, Version};
use super::properties::{self, Place, Properties};
use super::reason::ReasonCode;
use super::wire::{put_binary, put_varint};

/// Appends the packet to `out` in the form of `version`; a CONNECT carries its own version.
///
/// On an error nothing is appended. Errors are programming errors or fields that do not fit:
/// properties without a place in this packet, strings over 65,535 bytes, AUTH under 3.1.1.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), CodecError> {
    let start = out.len();
    let result = encode_at(packet, version, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_at(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), CodecError> {
    let kind = packet.packet_type();
    let flags = match packet {
        Packet::Publish(p) => u8::from(p.dup) << 3 | (p.qos as u8) << 1 | u8::from(p.retain),
        _ => fixed_flags(kind).unwrap_or(0),
    };
    // The payload is by far the largest part: it is written once, after the length is known.
    let mut head = BytesMut::new();
    let payload = match packet {
        Packet::Publish(p) => {
            publish(p, version, &mut head)?;
            &p.payload[..]
        }
        _ => {
            body(packet, version, &mut head)?;
            &[]
        }
    };
    out.reserve(5 + head.len() + payload.len());
    out.put_u8((kind as u8) << 4 | flags);
    put_varint(out, head.len() + payload.len())?;
    out.put_slice(&head);
    out.put_slice(payload);
    Ok(())
}

fn props(
    packet: &Packet,
    properties: &Properties,
    version: Version,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    match version {
        Version::V4 => Ok(()),
        Version::V5 => properties::encode(properties, Place::In(packet.packet_type()), out),
    }
}

fn body(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), CodecError> {
    match packet {
        Packet::Connect(c) => connect(c, out),
        Packet::ConnAck(c) => {
            out.put_u8(c.session_present.into());
            out.put_u8(match version {
                Version::V4 => c.reason.to_v4_connack(),
                Version::V5 => c.reason as u8,
            });
            props(packet, &c.properties, version, out)
        }
        Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => {
            out.put_u16(a.packet_id);
            reason_and_properties(packet, a.reason, &a.properties, version, out)
        }
        Packet::Subscribe(s) => {
            out.put_u16(s.packet_id);
            props(packet, &s.properties, version, out)?;
            for filter in &s.filters {
                put_binary(out, "the topic filter", filter.filter.as_bytes())?;
                out.put_u8(options(filter, version));
            }
            Ok(())
        }
        Packet::SubAck(s) => {
            out.put_u16(s.packet_id);
            props(packet, &s.properties, version, out)?;
            for reason in &s.reasons {
                out.put_u8(match version {
                    Version::V4 if reason.is_error() => 0x80,
                    _ => *reason as u8,
                });
            }
            Ok(())
        }
        Packet::Unsubscribe(u) => {
            out.put_u16(u.packet_id);
            props(packet, &u.properties, version, out)?;
            u.filters
                .iter()
                .try_for_each(|filter| put_binary(out, "the topic filter", filter.as_bytes()))
        }
        Packet::UnsubAck(u) => {
            out.put_u16(u.packet_id);
            props(packet, &u.properties, version, out)?;
            if version == Version::V5 {
                out.extend(u.reasons.iter().map(|reason| *reason as u8));
            }
            Ok(())
        }
        Packet::Disconnect(d) => {
            reason_and_properties(packet, d.reason, &d.properties, version, out)
        }
        Packet::Auth(_) if version == Version::V4 => Err(CodecError::AuthInV4),
        Packet::Auth(a) => reason_and_properties(packet, a.reason, &a.properties, version, out),
        Packet::Publish(_) | Packet::PingReq | Packet::PingResp => Ok(()),
    }
}

fn reason_and_properties(
    packet: &Packet,
    reason: ReasonCode,
    properties: &Properties,
    version: Version,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let bare = properties.is_empty();
    if version == Version::V4 || (bare && reason == ReasonCode::Success) {
        return Ok(());
    }
    out.put_u8(reason as u8);
    if bare {
        return Ok(());
    }
    props(packet, properties, version, out)
}

fn connect(c: &Connect, out: &mut BytesMut) -> Result<(), CodecError> {
    put_binary(out, "the protocol name", b"MQTT")?;
    let mut flags = u8::from(c.clean_start) << 1;
    if let Some(will) = &c.will {
        flags |= 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(c.password.is_some()) << 6 | u8::from(c.username.is_some()) << 7;
    out.put_u8(match c.version {
        Version::V4 => 4,
        Version::V5 => 5,
    });
    out.put_u8(flags);
    out.put_u16(c.keep_alive);
    if c.version == Version::V5 {
        properties::encode(&c.properties, Place::In(super::PacketType::Connect), out)?;
    }
    put_binary(out, "the client identifier", c.client_id.as_bytes())?;
    if let Some(will) = &c.will {
        if c.version == Version::V5 {
            properties::encode(&will.properties, Place::Will, out)?;
        }
        put_binary(out, "the will topic", will.topic.as_bytes())?;
        put_binary(out, "the will payload", &will.payload)?;
    }
    if let Some(username) = &c.username {
        put_binary(out, "the user name", username.as_bytes())?;
    }
    if let Some(password) = &c.password {
        put_binary(out, "the password", password)?;
    }
    Ok(())
}

/// All of a PUBLISH but its payload.
fn publish(p: &Publish, version: Version, out: &mut BytesMut) -> Result<(), CodecError> {
    put_binary(out, "the topic name", p.topic.as_bytes())?;
    if p.qos != super::QoS::AtMostOnce {
        out.put_u16(p.packet_id);
    }
    match version {
        Version::V4 => Ok(()),
        Version::V5 => {
            properties::encode(&p.properties, Place::In(super::PacketType::Publish), out)
        }
    }
}

fn options(s: &Subscription, version: Version) -> u8 {
    match version {
        Version::V4 => s.qos as u8,
        Version::V5 => {
            s.qos as u8
                | u8::from(s.no_local) << 2
                | u8::from(s.retain_as_published) << 3
                | (s.retain_handling as u8) << 4
        }
    }
}
