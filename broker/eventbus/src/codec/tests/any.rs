//! Any valid packet of a version.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::super::*;

fn text() -> BoxedStrategy<String> {
    "[a-zA-Z0-9é€ /$]{0,12}".boxed()
}

fn name() -> BoxedStrategy<String> {
    "[$aé/]{1,10}".boxed()
}

fn filter() -> BoxedStrategy<String> {
    prop_oneof![
        name().prop_filter("not shared", |n| topic::valid_filter(n)),
        Just("#".to_owned()),
        "([ab]|\\+)(/[ab]|/\\+){0,3}(/#)?",
        "\\$share/[a-z]{1,4}/[ab+](/#)?",
    ]
    .boxed()
}

fn bytes() -> BoxedStrategy<Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from).boxed()
}

fn qos() -> BoxedStrategy<QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
    .boxed()
}

fn id() -> BoxedStrategy<u16> {
    (1..=u16::MAX).boxed()
}

fn user() -> BoxedStrategy<Vec<(String, String)>> {
    vec((text(), text()), 0..3).boxed()
}

fn none_in_v4(version: Version, strategy: BoxedStrategy<Properties>) -> BoxedStrategy<Properties> {
    match version {
        Version::V4 => Just(Properties::NONE).boxed(),
        Version::V5 => prop_oneof![Just(Properties::NONE), strategy].boxed(),
    }
}

/// What most packets may carry.
fn reasons(version: Version) -> BoxedStrategy<Properties> {
    let some = (of(text()), user()).prop_map(|(reason_string, user)| {
        Properties::from(PropertySet {
            reason_string,
            user,
            ..PropertySet::default()
        })
    });
    none_in_v4(version, some.boxed())
}

fn of_publish(version: Version) -> BoxedStrategy<Properties> {
    let some = (
        (of(0..=1u8), of(any::<u32>()), of(text()), of(name())),
        (of(bytes()), vec(1..268_435_456u32, 0..3), of(id()), user()),
    )
        .prop_map(
            |((format, expiry, kind, reply), (data, ids, alias, user))| {
                Properties::from(PropertySet {
                    payload_format_indicator: format,
                    message_expiry_interval: expiry,
                    content_type: kind,
                    response_topic: reply,
                    correlation_data: data,
                    subscription_ids: ids,
                    topic_alias: alias,
                    user,
                    ..PropertySet::default()
                })
            },
        );
    none_in_v4(version, some.boxed())
}

fn of_will(version: Version) -> BoxedStrategy<Properties> {
    let some = (of_publish(Version::V5), of(any::<u32>())).prop_map(|(mut properties, delay)| {
        properties.subscription_ids.clear();
        properties.topic_alias = None;
        properties.will_delay_interval = delay;
        properties
    });
    none_in_v4(version, some.boxed())
}

fn of_connect(version: Version) -> BoxedStrategy<Properties> {
    let some = (
        (
            of(any::<u32>()),
            of(id()),
            of(1..=u32::MAX),
            of(any::<u16>()),
        ),
        (
            of(any::<bool>()),
            of(any::<bool>()),
            of((text(), of(bytes()))),
            user(),
        ),
    )
        .prop_map(
            |((expiry, receive, packet, aliases), (reply, problem, auth, user))| {
                let (method, data) = auth.unzip();
                Properties::from(PropertySet {
                    session_expiry_interval: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: packet,
                    topic_alias_maximum: aliases,
                    request_response_information: reply,
                    request_problem_information: problem,
                    authentication_method: method,
                    authentication_data: data.flatten(),
                    user,
                    ..PropertySet::default()
                })
            },
        );
    none_in_v4(version, some.boxed())
}

fn of_connack(version: Version) -> BoxedStrategy<Properties> {
    let some = (
        (
            of(0..=1u8),
            of(any::<bool>()),
            of(any::<bool>()),
            of(any::<bool>()),
        ),
        (
            of(text()),
            of(any::<u16>()),
            of(text()),
            of(text()),
            of(any::<bool>()),
        ),
        reasons(Version::V5),
    )
        .prop_map(
            |((qos, retain, wild, ids), (client, alive, info, server, shared), base)| {
                Properties::from(PropertySet {
                    maximum_qos: qos,
                    retain_available: retain,
                    wildcard_subscription_available: wild,
                    subscription_ids_available: ids,
                    shared_subscription_available: shared,
                    assigned_client_id: client,
                    server_keep_alive: alive,
                    response_information: info,
                    server_reference: server,
                    ..(*base).clone()
                })
            },
        );
    none_in_v4(version, some.boxed())
}

fn reason(version: Version, packet: PacketType) -> BoxedStrategy<ReasonCode> {
    match version {
        Version::V4 => Just(ReasonCode::Success).boxed(),
        Version::V5 => {
            let allowed: Vec<_> = ReasonCode::ALL
                .iter()
                .copied()
                .filter(|reason| reason.allowed_in(packet))
                .collect();
            prop::sample::select(allowed).boxed()
        }
    }
}

fn connect(version: Version) -> BoxedStrategy<Packet> {
    let will = (qos(), any::<bool>(), of_will(version), name(), bytes()).prop_map(
        |(qos, retain, properties, topic, payload)| Will {
            qos,
            retain,
            properties,
            topic,
            payload,
        },
    );
    (
        (any::<bool>(), any::<u16>(), of_connect(version), text()),
        (of(will), of(text()), of(bytes())),
    )
        .prop_map(
            move |(
                (clean_start, keep_alive, properties, client_id),
                (will, username, password),
            )| {
                let password = password.filter(|_| version == Version::V5 || username.is_some());
                Packet::Connect(Box::new(Connect {
                    version,
                    clean_start,
                    keep_alive,
                    properties,
                    client_id,
                    will,
                    username,
                    password,
                }))
            },
        )
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Packet> {
    (
        qos(),
        any::<bool>(),
        any::<bool>(),
        name(),
        id(),
        of_publish(version),
        bytes(),
    )
        .prop_map(|(qos, dup, retain, topic, id, properties, payload)| {
            let reliable = qos != QoS::AtMostOnce;
            Packet::Publish(Publish {
                dup: dup && reliable,
                qos,
                retain,
                topic,
                packet_id: if reliable { id } else { 0 },
                properties,
                payload,
            })
        })
        .boxed()
}

fn ack(version: Version, packet: PacketType, make: fn(Ack) -> Packet) -> BoxedStrategy<Packet> {
    (id(), reason(version, packet), reasons(version))
        .prop_map(move |(packet_id, reason, properties)| {
            make(Ack {
                packet_id,
                reason,
                properties,
            })
        })
        .boxed()
}

fn subscription(version: Version) -> BoxedStrategy<Subscription> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (filter(), qos(), any::<bool>(), any::<bool>(), handling)
        .prop_map(move |(filter, qos, no_local, published, handling)| {
            let v5 = version == Version::V5;
            Subscription {
                no_local: v5 && no_local && !topic::is_shared(&filter),
                filter,
                qos,
                retain_as_published: v5 && published,
                retain_handling: if v5 { handling } else { RetainHandling::Send },
            }
        })
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Packet> {
    let some = (user(), of(1..268_435_456u32)).prop_map(|(user, id)| {
        Properties::from(PropertySet {
            user,
            subscription_ids: id.into_iter().collect(),
            ..PropertySet::default()
        })
    });
    (
        id(),
        none_in_v4(version, some.boxed()),
        vec(subscription(version), 1..5),
    )
        .prop_map(|(packet_id, properties, filters)| {
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        })
        .boxed()
}

fn suback(version: Version) -> BoxedStrategy<Packet> {
    let reason = match version {
        Version::V5 => reason(version, PacketType::SubAck),
        Version::V4 => prop::sample::select(vec![
            ReasonCode::GRANTED_QOS_0,
            ReasonCode::GrantedQoS1,
            ReasonCode::GrantedQoS2,
            ReasonCode::UnspecifiedError,
        ])
        .boxed(),
    };
    (id(), reasons(version), vec(reason, 1..5))
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons,
            })
        })
        .boxed()
}

fn only_user(version: Version) -> BoxedStrategy<Properties> {
    let some = user().prop_map(|user| {
        Properties::from(PropertySet {
            user,
            ..PropertySet::default()
        })
    });
    none_in_v4(version, some.boxed())
}

fn unsubscribe(version: Version) -> BoxedStrategy<Packet> {
    (id(), only_user(version), vec(filter(), 1..5))
        .prop_map(|(packet_id, properties, filters)| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        })
        .boxed()
}

fn unsuback(version: Version) -> BoxedStrategy<Packet> {
    let count = match version {
        Version::V4 => 0..1,
        Version::V5 => 1..5,
    };
    (
        id(),
        reasons(version),
        vec(reason(version, PacketType::UnsubAck), count),
    )
        .prop_map(|(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                reasons,
            })
        })
        .boxed()
}

fn connack(version: Version) -> BoxedStrategy<Packet> {
    let reason = match version {
        Version::V5 => reason(version, PacketType::ConnAck),
        Version::V4 => (0..=5u8)
            .prop_map(|code| ReasonCode::from_v4_connack(code).unwrap())
            .boxed(),
    };
    (any::<bool>(), reason, of_connack(version))
        .prop_map(|(session_present, reason, properties)| {
            Packet::ConnAck(ConnAck {
                session_present,
                reason,
                properties,
            })
        })
        .boxed()
}

pub fn packet(version: Version) -> BoxedStrategy<Packet> {
    let disconnect = (reason(version, PacketType::Disconnect), reasons(version))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }));
    let mut kinds = vec![
        connect(version),
        connack(version),
        publish(version),
        ack(version, PacketType::PubAck, Packet::PubAck),
        ack(version, PacketType::PubRec, Packet::PubRec),
        ack(version, PacketType::PubRel, Packet::PubRel),
        ack(version, PacketType::PubComp, Packet::PubComp),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
        disconnect.boxed(),
    ];
    if version == Version::V5 {
        let auth = (reason(version, PacketType::Auth), reasons(version))
            .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }));
        kinds.push(auth.boxed());
    }
    prop::strategy::Union::new(kinds).boxed()
}
