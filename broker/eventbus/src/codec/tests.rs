//! Tables from the specifications, round trips, and input that is not MQTT.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;
const V4: Option<Version> = Some(Version::V4);
const V5: Option<Version> = Some(Version::V5);

fn read(bytes: &[u8], version: Option<Version>) -> Result<Option<Packet>, CodecError> {
    let mut buf = BytesMut::from(bytes);
    let packet = decode(&mut buf, version, MAX);
    if let Ok(Some(_)) = packet {
        assert!(buf.is_empty(), "one packet is all of {bytes:02x?}");
    }
    packet
}

fn packet(bytes: &[u8], version: Option<Version>) -> Packet {
    read(bytes, version)
        .unwrap_or_else(|e| panic!("{bytes:02x?}: {e}"))
        .unwrap_or_else(|| panic!("{bytes:02x?} is not whole"))
}

fn error(bytes: &[u8], version: Option<Version>) -> CodecError {
    match read(bytes, version) {
        Err(error) => error,
        other => panic!("{bytes:02x?} gives {other:?}"),
    }
}

fn write(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).unwrap();
    out.to_vec()
}

/// A packet with a right remaining length.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[first]);
    wire::put_varint(&mut out, body.len()).unwrap();
    out.extend_from_slice(body);
    out.to_vec()
}

fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
    body.extend_from_slice(rest);
    frame(0x10, &body)
}

#[test]
fn the_remaining_length_takes_one_to_four_minimal_bytes() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xff, 0xff, 0x7f]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        assert_eq!(wire::varint(bytes), Ok(Some((value, bytes.len()))));
        let mut out = BytesMut::new();
        wire::put_varint(&mut out, value as usize).unwrap();
        assert_eq!(out, bytes);
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(wire::varint(cut), Ok(None), "{cut:02x?}");
    }
    assert_eq!(
        wire::varint(&[0x80, 0x00]),
        Err(CodecError::LengthNotMinimal)
    );
    assert_eq!(wire::varint(&[0x80; 4]), Err(CodecError::LengthTooLong));
    assert!(wire::put_varint(&mut BytesMut::new(), 268_435_456).is_err());
}

#[test]
fn a_packet_too_large_is_refused_before_it_has_arrived() {
    let mut buf = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
    let refused = decode(&mut buf, V4, 1000);
    let size = 5 + 268_435_455;
    assert_eq!(refused, Err(CodecError::TooLarge { size, max: 1000 }));
    let whole = frame(0x30, &[0, 1, b'a', 1, 2]);
    let mut buf = BytesMut::from(&whole[..]);
    assert!(decode(&mut buf.clone(), V4, whole.len() - 1).is_err());
    assert!(decode(&mut buf, V4, whole.len()).unwrap().is_some());
}

#[test]
fn two_packets_in_one_buffer_come_one_after_the_other() {
    let mut buf = BytesMut::from(&[0xc0, 0x00, 0xe0, 0x00, 0x30][..]);
    assert_eq!(decode(&mut buf, V4, MAX), Ok(Some(Packet::PingReq)));
    let bye = decode(&mut buf, V4, MAX).unwrap().unwrap();
    assert_eq!(bye.packet_type(), PacketType::Disconnect);
    assert_eq!(decode(&mut buf, V4, MAX), Ok(None));
}

#[test]
fn the_flags_of_every_packet_but_publish_are_fixed() {
    for kind in PacketType::ALL {
        if kind == PacketType::Publish {
            continue;
        }
        let want = match kind {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 2,
            _ => 0,
        };
        for flags in (0..16).filter(|flags| *flags != want) {
            let got = error(&[(kind as u8) << 4 | flags, 0], V5);
            assert_eq!(
                got,
                CodecError::Flags {
                    packet: kind,
                    flags,
                    want
                }
            );
        }
    }
    assert_eq!(error(&[0x00, 0], V5), CodecError::ReservedType);
    assert_eq!(error(&[0xf0, 0], V4), CodecError::AuthInV4);
}

#[test]
fn the_first_packet_must_be_connect() {
    let got = error(&[0xc0, 0x00], None);
    assert_eq!(got, CodecError::ConnectExpected(PacketType::PingReq));
    assert_eq!(got.reason(), ReasonCode::ProtocolError);
}

#[test]
fn a_full_connect_is_read_in_both_versions() {
    let v4 = connect(
        4,
        0b1110_1110,
        &[
            0, 2, b'i', b'd', 0, 1, b'w', 0, 2, 1, 2, 0, 1, b'u', 0, 1, 0xff,
        ],
    );
    let Packet::Connect(c) = packet(&v4, None) else {
        panic!("not a CONNECT")
    };
    assert_eq!(
        (c.version, c.clean_start, c.keep_alive),
        (Version::V4, true, 60)
    );
    assert_eq!(c.client_id, "id");
    assert_eq!(c.username.as_deref(), Some("u"));
    assert_eq!(c.password, Some(Bytes::from_static(&[0xff])));
    let will = c.will.unwrap();
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
    assert_eq!((&*will.topic, &will.payload[..]), ("w", &[1, 2][..]));

    let v5 = connect(5, 2, &[5, 0x11, 0, 0, 0, 10, 0, 0]);
    let Packet::Connect(c) = packet(&v5, None) else {
        panic!("not a CONNECT")
    };
    assert_eq!(c.version, Version::V5);
    assert_eq!(c.properties.session_expiry_interval, Some(10));
    assert_eq!(c.client_id, "");
}

#[test]
fn other_protocols_are_told_apart_so_that_they_can_be_answered() {
    for (name, level, answer) in [
        (&b"MQTT"[..], 3, Version::V4),
        (b"MQTT", 6, Version::V5),
        (b"MQTT", 0x84, Version::V4),
        (b"MQTT", 0x85, Version::V5),
        (b"MQIsdp", 3, Version::V4),
        (b"mqtt", 4, Version::V4),
    ] {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name);
        body.extend_from_slice(&[level, 2, 0, 60, 0, 0]);
        let got = error(&frame(0x10, &body), None);
        assert_eq!(got.answer_version(), Some(answer), "{got}");
        assert_eq!(got.reason(), ReasonCode::UnsupportedProtocolVersion);
    }
    let long = [&[0xff, 0xff][..], &[0xc3; 65_535], &[4]].concat();
    assert!(error(&frame(0x10, &long), None).to_string().len() < 200);
}

#[test]
fn connect_flags_that_contradict_each_other_are_refused() {
    for (level, flags) in [
        (4, 0b0000_0011), // reserved bit
        (5, 0b0000_0001),
        (4, 0b0001_0000), // will QoS without will
        (4, 0b0010_0000), // will retain without will
        (4, 0b0001_1100), // will QoS 3
        (4, 0b0100_0000), // password without user name: 3.1.1 only
    ] {
        let got = error(&connect(level, flags, &[0, 0, 0, 0, 0, 0]), None);
        assert_eq!(
            got.reason(),
            ReasonCode::MalformedPacket,
            "{flags:#b}: {got}"
        );
    }
    packet(&connect(5, 0b0100_0000, &[0, 0, 0, 0, 1, b'p']), None);
}

#[test]
fn strings_are_utf_8_without_nul() {
    let at = |bytes: &[u8]| {
        let body = [&[0, bytes.len() as u8][..], bytes].concat();
        read(&frame(0x30, &body), V4)
    };
    assert!(at("é/x".as_bytes()).unwrap().is_some());
    assert!(at(&[0xef, 0xbb, 0xbf]).unwrap().is_some(), "U+FEFF is kept");
    for bad in [
        &[0xff][..],
        &[0xc0, 0x80],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
    ] {
        assert!(
            matches!(at(bad), Err(CodecError::NotUtf8 { .. })),
            "{bad:02x?}"
        );
    }
    assert!(matches!(at(b"a\0b"), Err(CodecError::Nul { .. })));
}

#[test]
fn a_publish_is_checked() {
    let at = |first, body: &[u8], version| read(&frame(first, body), version);
    let bad = |first, body: &[u8], version| at(first, body, version).unwrap_err();
    assert_eq!(bad(0x36, &[0, 1, b'a', 0, 1], V4), CodecError::QoS3);
    assert_eq!(bad(0x38, &[0, 1, b'a'], V4), CodecError::DupAtQoS0);
    let id_zero = CodecError::PacketIdZero(PacketType::Publish);
    assert_eq!(bad(0x32, &[0, 1, b'a', 0, 0], V4), id_zero);
    for topic in [&b""[..], b"#", b"a/+"] {
        let body = [&[0, topic.len() as u8][..], topic].concat();
        assert_eq!(bad(0x30, &body, V4).reason(), ReasonCode::TopicNameInvalid);
    }
    // An empty topic needs an alias, which is not 0.
    assert!(at(0x30, &[0, 0, 3, 0x23, 0, 1], V5).is_ok());
    assert_eq!(
        bad(0x30, &[0, 0, 0], V5).reason(),
        ReasonCode::TopicNameInvalid
    );
    let zero = bad(0x30, &[0, 0, 3, 0x23, 0, 0], V5);
    assert_eq!(zero.reason(), ReasonCode::TopicAliasInvalid);
    // A response topic has no wildcard.
    let reply = bad(0x30, &[0, 1, b'a', 4, 0x08, 0, 1, b'+'], V5);
    assert_eq!(reply, CodecError::TopicName("+".into()));
}

#[test]
fn text_that_is_declared_and_is_not_utf_8_can_be_told() {
    let mut publish = Publish {
        topic: "a".into(),
        payload: Bytes::from_static(&[0xff]),
        ..Publish::default()
    };
    assert!(publish.payload_is_as_declared());
    publish.properties.payload_format_indicator = Some(1);
    assert!(!publish.payload_is_as_declared());
    publish.payload = Bytes::from_static(b"text");
    assert!(publish.payload_is_as_declared());
}

#[test]
fn a_subscribe_is_checked() {
    let at = |body: &[u8], version| read(&frame(0x82, body), version);
    let reason = |body: &[u8], version| at(body, version).unwrap_err().reason();
    assert!(at(&[0, 1, 0, 1, b'a', 2], V4).is_ok());
    assert!(at(&[0, 1, 0, 0, 1, b'a', 0b0010_1110], V5).is_ok());
    let protocol = ReasonCode::ProtocolError;
    assert_eq!(reason(&[0, 1], V4), protocol, "no filter");
    assert_eq!(reason(&[0, 0, 0, 1, b'a', 0], V4), protocol, "packet id 0");
    assert_eq!(
        reason(&[0, 1, 0, 1, b'a', 4], V4),
        protocol,
        "5's options in 3.1.1"
    );
    assert_eq!(
        reason(&[0, 1, 0, 0, 1, b'a', 0x40], V5),
        protocol,
        "reserved"
    );
    assert_eq!(
        reason(&[0, 1, 0, 0, 1, b'a', 0x30], V5),
        protocol,
        "handling 3"
    );
    assert_eq!(
        reason(&[0, 1, 0, 0, 1, b'a', 3], V5),
        ReasonCode::MalformedPacket
    );
    assert_eq!(
        reason(&[0, 1, 0, 2, b'a', b'#', 0], V4),
        ReasonCode::TopicFilterInvalid
    );
    let shared = [&[0, 1, 0, 0, 10][..], b"$share/g/a", &[0b100]].concat();
    assert_eq!(
        reason(&shared, V5),
        protocol,
        "no local on a shared subscription"
    );
    // A subscription identifier stands once and is not 0.
    assert_eq!(reason(&[0, 1, 2, 0x0b, 0, 0, 1, b'a', 0], V5), protocol);
    assert_eq!(
        reason(&[0, 1, 4, 0x0b, 1, 0x0b, 1, 0, 1, b'a', 0], V5),
        protocol
    );
    assert!(at(&[0, 1, 2, 0x0b, 1, 0, 1, b'a', 0], V5).is_ok());
}

#[test]
fn properties_stand_where_they_may_once_and_in_range() {
    // DISCONNECT with the properties of the last column.
    for (bytes, why) in [
        (&[0x23, 0, 1][..], "topic alias is for PUBLISH"),
        (&[0x7f, 0], "no such property"),
        (&[0x1f, 0, 1, b'a', 0x1f, 0, 1, b'b'], "twice"),
        (&[0x11, 0, 0, 0], "short"),
        (&[0x80, 0x00], "identifier not minimal"),
    ] {
        let body = [&[0, bytes.len() as u8][..], bytes].concat();
        assert!(read(&frame(0xe0, &body), V5).is_err(), "{why}");
    }
    let user = [
        0, 14, 0x26, 0, 1, b'a', 0, 1, b'b', 0x26, 0, 1, b'a', 0, 1, b'c',
    ];
    let Packet::Disconnect(d) = packet(&frame(0xe0, &user), V5) else {
        panic!("not a DISCONNECT")
    };
    assert_eq!(d.properties.user.len(), 2, "user properties may repeat");

    for (property, reason) in [
        (&[0x21, 0, 0][..], ReasonCode::ProtocolError),
        (&[0x27, 0, 0, 0, 0], ReasonCode::ProtocolError),
        (&[0x17, 2], ReasonCode::ProtocolError),
        (&[0x16, 0, 1, 9], ReasonCode::ProtocolError),
        (&[0x15, 0, 9], ReasonCode::MalformedPacket),
    ] {
        let rest = [&[property.len() as u8][..], property, &[0, 0]].concat();
        let got = error(&connect(5, 2, &rest), None);
        assert_eq!(got.reason(), reason, "{property:02x?}: {got}");
    }
    // A property length beyond the packet.
    assert!(read(&frame(0xe0, &[0, 0x7f, 0x11]), V5).is_err());
}

#[test]
fn acknowledgements_have_short_forms() {
    for kind in [0x40, 0x50, 0x62, 0x70u8] {
        let short = frame(kind, &[0, 7]);
        let full = frame(kind, &[0, 7, 0]);
        let empty = frame(kind, &[0, 7, 0, 0]);
        assert_eq!(packet(&short, V5), packet(&full, V5));
        assert_eq!(packet(&short, V5), packet(&empty, V5));
        assert_eq!(write(&packet(&empty, V5), Version::V5), short);
        assert!(read(&full, V4).is_err(), "3.1.1 has no reason code");
        assert!(read(&frame(kind, &[0, 0]), V4).is_err(), "packet id 0");
    }
    assert!(
        read(&frame(0x40, &[0, 7, 0x92]), V5).is_err(),
        "PUBREL's code"
    );
    assert!(read(&frame(0x62, &[0, 7, 0x92]), V5).is_ok());
    assert_eq!(write(&packet(&[0xe0, 1, 0], V5), Version::V5), [0xe0, 0]);
    assert_eq!(write(&packet(&[0xe0, 1, 4], V5), Version::V5), [0xe0, 1, 4]);
    assert!(read(&[0xe0, 1, 0], V4).is_err());
    assert!(read(&[0xc0, 1, 0], V4).is_err());
}

#[test]
fn reason_codes_become_the_nearest_3_1_1_codes() {
    let connack = |reason| {
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties: Properties::NONE,
        });
        write(&packet, Version::V4)
    };
    assert_eq!(
        connack(ReasonCode::UnsupportedProtocolVersion),
        [0x20, 2, 0, 1]
    );
    assert_eq!(
        connack(ReasonCode::ClientIdentifierNotValid),
        [0x20, 2, 0, 2]
    );
    assert_eq!(connack(ReasonCode::ServerBusy), [0x20, 2, 0, 3]);
    assert_eq!(connack(ReasonCode::BadUserNameOrPassword), [0x20, 2, 0, 4]);
    assert_eq!(connack(ReasonCode::NotAuthorized), [0x20, 2, 0, 5]);
    let suback = Packet::SubAck(SubAck {
        packet_id: 1,
        properties: Properties::NONE,
        reasons: vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized],
    });
    assert_eq!(write(&suback, Version::V4), [0x90, 4, 0, 1, 1, 0x80]);
    for code in ReasonCode::ALL {
        assert_eq!(ReasonCode::from_u8(*code as u8), Some(*code));
        assert!(!code.text().is_empty());
    }
}

#[test]
fn a_property_in_the_wrong_packet_is_not_written() {
    let mut ack = Ack::ok(1);
    ack.properties.topic_alias = Some(1);
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(encode(&Packet::PubAck(ack), Version::V5, &mut out).is_err());
    assert_eq!(out, &b"before"[..]);
}

#[test]
fn what_only_a_server_sends_is_told_apart() {
    assert!(packet(&[0xd0, 0], V4).check_from_client().is_err());
    assert!(packet(&[0xc0, 0], V4).check_from_client().is_ok());
    let with_id = frame(0x30, &[0, 1, b'a', 4, 0x0b, 1, 0x0b, 2]);
    let got = packet(&with_id, V5).check_from_client().unwrap_err();
    assert_eq!(got.reason(), ReasonCode::ProtocolError);
}

#[test]
fn the_payload_shares_the_buffer() {
    let mut buf = BytesMut::from(&frame(0x30, &[&[0, 1, b'a'][..], &[7; 4096]].concat())[..]);
    let at = buf.as_ptr() as usize;
    let Packet::Publish(p) = decode(&mut buf, V4, MAX).unwrap().unwrap() else {
        panic!("not a PUBLISH")
    };
    let payload = p.payload.as_ptr() as usize;
    assert!(payload > at && payload < at + 16);
}

mod any;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_packet_of_3_1_1_comes_back(packet in any::packet(Version::V4)) {
        let bytes = write(&packet, Version::V4);
        prop_assert_eq!(read(&bytes, V4), Ok(Some(packet)));
    }

    #[test]
    fn every_packet_of_5_comes_back(packet in any::packet(Version::V5)) {
        let bytes = write(&packet, Version::V5);
        prop_assert_eq!(read(&bytes, V5), Ok(Some(packet)));
    }

    /// Cut anywhere, a packet is incomplete, never wrong; with its length mended to the cut it
    /// is wrong or another packet, never a panic.
    #[test]
    fn a_truncated_packet_is_waited_for_or_refused(packet in any::packet(Version::V5), at in any::<prop::sample::Index>()) {
        let bytes = write(&packet, Version::V5);
        let cut = at.index(bytes.len());
        prop_assert_eq!(read(&bytes[..cut], V5), Ok(None));
        let Some((_, used)) = wire::varint(&bytes[1..]).unwrap() else { unreachable!() };
        if cut > used {
            let mended = frame(bytes[0], &bytes[1 + used..cut.max(1 + used)]);
            drop(read(&mended, V5));
            drop(read(&mended, V4));
        }
    }

    #[test]
    fn one_changed_byte_never_panics(packet in any::packet(Version::V5), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = write(&packet, Version::V5);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for version in [None, V4, V5] {
            drop(decode(&mut BytesMut::from(&bytes[..]), version, MAX));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), first: u8) {
        let framed = frame(first, &bytes);
        for version in [None, V4, V5] {
            drop(decode(&mut BytesMut::from(&bytes[..]), version, MAX));
            // What is accepted is written again and read the same.
            if let Ok(Some(packet)) = decode(&mut BytesMut::from(&framed[..]), version, MAX) {
                let version = match &packet {
                    Packet::Connect(c) => c.version,
                    _ => version.unwrap(),
                };
                let again = write(&packet, version);
                prop_assert!(again.len() <= framed.len() + 4);
                prop_assert_eq!(read(&again, Some(version)), Ok(Some(packet)));
            }
        }
    }
}
