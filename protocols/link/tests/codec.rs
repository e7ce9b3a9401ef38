//! Frames survive the wire; bytes from anywhere never panic and never allocate more than they bring.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use edgebus_linkproto::*;
use proptest::prelude::*;

fn kind() -> impl Strategy<Value = Kind> {
    "[a-z0-9.-]{1,63}".prop_map(|text| Kind::new(&text).unwrap())
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn digest() -> impl Strategy<Value = Digest> {
    prop::collection::vec(("[a-z/]{0,8}", "[a-z]{0,4}", hash()), 0..4).prop_map(|entries| {
        let mut digest = Digest::EMPTY;
        entries
            .iter()
            .for_each(|(topic, uid, hash)| digest.add(topic, uid, hash));
        digest
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = "\\PC{0,40}";
    let entry =
        (text, "[a-f0-9-]{0,36}", hash()).prop_map(|(topic, uid, hash)| Entry { topic, uid, hash });
    prop_oneof![
        (
            any::<u16>(),
            text,
            text,
            any::<bool>(),
            prop::collection::btree_map(kind(), digest(), 0..5)
        )
            .prop_map(|(proto, node, id, zstd, have)| Frame::Hello(Hello {
                proto,
                node,
                store_id: id.clone(),
                cluster_id: id,
                version: "1".into(),
                zstd,
                have
            })),
        (any::<u16>(), text).prop_map(|(code, why)| Frame::Bye {
            code: Code(code),
            why
        }),
        (any::<u64>(), kind(), text, text, hash(), bytes()).prop_map(
            |(seq, kind, topic, uid, hash, body)| Frame::Put(Put {
                seq,
                kind,
                topic,
                uid,
                hash,
                body
            })
        ),
        (any::<u64>(), kind(), text, text).prop_map(|(seq, kind, topic, uid)| Frame::Del {
            seq,
            kind,
            topic,
            uid
        }),
        any::<u64>().prop_map(|seq| Frame::Ack { seq }),
        (any::<u64>(), any::<u16>(), text, any::<bool>()).prop_map(
            |(seq, code, why, permanent)| {
                Frame::Nack {
                    seq,
                    code: Code(code),
                    why,
                    permanent,
                }
            }
        ),
        (
            kind(),
            any::<u32>(),
            any::<bool>(),
            any::<bool>(),
            prop::collection::vec(entry, 0..20)
        )
            .prop_map(|(kind, part, complete, last, entries)| Frame::Manifest {
                kind,
                part,
                complete,
                last,
                entries
            }),
        (kind(), any::<bool>(), prop::collection::vec(text, 0..20))
            .prop_map(|(kind, last, topics)| Frame::Want { kind, last, topics }),
        (kind(), digest()).prop_map(|(kind, digest)| Frame::Same { kind, digest }),
        (kind(), digest()).prop_map(|(kind, digest)| Frame::Have { kind, digest }),
        any::<u64>().prop_map(|at_ms| Frame::Ping { at_ms }),
        any::<u64>().prop_map(|at_ms| Frame::Pong { at_ms }),
        (any::<u64>(), text).prop_map(|(seq, csr_pem)| Frame::Renew { seq, csr_pem }),
        (any::<u64>(), text, text).prop_map(|(seq, cert_pem, ca_pem)| Frame::Renewed {
            seq,
            cert_pem,
            ca_pem
        }),
        (any::<u32>(), bytes()).prop_map(|(stream, head)| Frame::Open { stream, head }),
        (any::<u32>(), bytes()).prop_map(|(stream, body)| Frame::Data { stream, body }),
        (any::<u32>(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        (any::<u32>(), any::<u16>(), text).prop_map(|(stream, code, why)| Frame::Close {
            stream,
            code: Code(code),
            why
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_survive_the_wire(frames in prop::collection::vec(frame(), 0..8)) {
        let message = encode_message(&frames).unwrap();
        if frames.is_empty() {
            prop_assert!(decode(message).is_err());
        } else {
            prop_assert_eq!(decode(message).unwrap(), frames);
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        for message in [bytes, versioned] {
            match decode(Bytes::from(message)) {
                Ok(frames) => prop_assert!(frames.len() < 400),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn a_damaged_message_is_an_answer_or_an_error(
        frames in prop::collection::vec(frame(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = encode_message(&frames).unwrap().to_vec();
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let short = message[..cut.index(message.len())].to_vec();
        for message in [message, short] {
            if let Err(error) = decode(Bytes::from(message)) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn lengths_beyond_their_limit_are_refused_before_anything_is_read() {
    // A Put that claims a topic of 4 GiB.
    let mut message = vec![1, 0, 0, 0, 0, 3, 0];
    message.extend(7u64.to_be_bytes());
    message.extend([0, 0, 0, 1, b'k', 0xff, 0xff, 0xff, 0xff]);
    let size = u32::try_from(message.len() - 5).unwrap();
    message[1..5].copy_from_slice(&size.to_be_bytes());
    let error = decode(Bytes::from(message)).unwrap_err();
    assert_eq!(error.to_string(), "topic: 4294967295, allowed are 1024");
}

#[test]
fn compressed_and_newer_messages_are_refused_by_name() {
    let message = encode_message(&[Frame::Ack { seq: 1 }]).unwrap();
    let mut compressed = message.to_vec();
    compressed[6] = 1;
    assert_eq!(decode(Bytes::from(compressed)), Err(CodecError::Flags(1)));
    let mut newer = message.to_vec();
    newer[0] = 9;
    assert_eq!(decode(Bytes::from(newer)), Err(CodecError::Version(9)));
}

#[test]
fn a_frame_that_does_not_fit_leaves_the_message_as_it_was() {
    let mut out = BytesMut::new();
    encode(&Frame::Ack { seq: 1 }, &mut out).unwrap();
    let before = out.clone();
    let body = Bytes::from(vec![0; limits::FRAME_BYTES]);
    assert!(encode(&Frame::Data { stream: 1, body }, &mut out).is_err());
    assert_eq!(out, before);
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let why = "é".repeat(limits::TEXT_BYTES);
    let message = encode_message(&[Frame::Bye {
        code: Code::BUSY,
        why,
    }])
    .unwrap();
    let Frame::Bye { why, .. } = decode(message).unwrap().remove(0) else {
        panic!("a Bye")
    };
    assert_eq!(why.len(), limits::TEXT_BYTES);
}
