//! What MQTT clients see of the front: CONNECT rules, QoS 0 and 1, retained messages, options,
//! wills, keep-alive, access rules.

// What helps a test may fail like a test.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Bus, Client, E, Login, plain};
use edgebus_bus::unit::Grant;
use edgebus_eventbus::codec::{
    Packet, Properties, Publish, QoS, ReasonCode, RetainHandling, Version,
};

const V4: Version = Version::V4;
const V5: Version = Version::V5;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_bad_token_and_no_token_are_refused() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let (_, ack) = Login::new(V5, "modbus").token("wrong").ask(&bus).await;
    assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
    assert!(ack.properties.reason_string.is_some());
    let (_, ack) = Login::new(V4, "modbus").token("wrong").ask(&bus).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    let (_, ack) = Login::nobody(V5).ask(&bus).await;
    assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
    let (_, ack) = Login::nobody(V5).ask(dir.path().join("bus.sock")).await;
    assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
    bus.stop().await;
}

#[tokio::test]
async fn a_units_client_id_must_be_its_own() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let (_, ack) = Login::new(V5, "modbus").id("link").ask(&bus).await;
    assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid);
    Login::new(V5, "modbus").id("modbus.2").join(&bus).await;
    let (_, ack) = Login::new(V5, "modbus").id("").ask(&bus).await;
    let id = ack.properties.assigned_client_id.clone().unwrap();
    assert!(id.starts_with("modbus."), "{id}");
    bus.stop().await;
}

#[tokio::test]
async fn the_sockets_say_who_is_who() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut operator = Login::nobody(V5).join(dir.path().join("admin.sock")).await;
    let set = format!("{E}/twin/d/p/set");
    assert_eq!(
        operator.publish(&set, "{}", false).await.reason,
        ReasonCode::Success
    );
    let mut app = Login::nobody(V5).join(dir.path().join("app.sock")).await;
    assert_eq!(
        app.publish("app/x", "1", false).await.reason,
        ReasonCode::Success
    );
    let ask = format!("{E}/sys/link/ask");
    assert_eq!(
        app.publish(&ask, "{}", false).await.reason,
        ReasonCode::NotAuthorized
    );
    bus.stop().await;
}

#[tokio::test]
async fn messages_go_at_the_lower_quality() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    for version in [V4, V5] {
        let mut zero = Login::new(version, "shop").id("zero").join(&bus).await;
        let mut one = Login::new(version, "shop").id("one").join(&bus).await;
        assert_eq!(
            zero.subscribe("app/+", QoS::AtMostOnce).await,
            ReasonCode::Success
        );
        assert_eq!(
            one.subscribe("app/#", QoS::ExactlyOnce).await,
            ReasonCode::GrantedQoS1
        );
        let mut publisher = Login::new(version, "shop").id("p").join(&bus).await;
        publisher.publish("app/a", "1", false).await;
        let got = zero.message().await;
        assert_eq!((got.qos, &got.payload[..]), (QoS::AtMostOnce, &b"1"[..]));
        let got = one.message().await;
        assert_eq!(
            (got.qos, got.dup, got.retain),
            (QoS::AtLeastOnce, false, false)
        );
        publisher.push("app/a", b"2", QoS::AtMostOnce, false).await;
        assert_eq!(one.message().await.qos, QoS::AtMostOnce);
    }
    bus.stop().await;
}

#[tokio::test]
async fn retained_messages_are_replayed_and_cleared() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut link = bus.client(V4, "link").await;
    let topic = format!("{E}/obj/device/d/p");
    link.publish(&topic, "{}", true).await;
    let mut twin = bus.client(V4, "devicetwin").await;
    twin.subscribe(&format!("{E}/obj/#"), QoS::AtLeastOnce)
        .await;
    let got = twin.message().await;
    assert_eq!((got.topic.as_str(), got.retain), (topic.as_str(), true));
    link.publish(&topic, "{\"a\":1}", true).await;
    assert!(
        !twin.message().await.retain,
        "live messages carry no retain flag"
    );
    link.publish(&topic, "", true).await;
    assert!(twin.message().await.payload.is_empty());
    let mut late = Login::new(V4, "devicetwin")
        .id("devicetwin.2")
        .join(&bus)
        .await;
    late.subscribe(&format!("{E}/obj/#"), QoS::AtLeastOnce)
        .await;
    late.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn subscription_options_are_followed() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "shop").await;
    c.publish("app/r", "old", true).await;
    let mut options = plain("app/#", QoS::AtLeastOnce);
    options.retain_handling = RetainHandling::DoNotSend;
    options.retain_as_published = true;
    c.subscribe_with(options.clone(), 7).await;
    c.push("app/r", b"new", QoS::AtMostOnce, true).await;
    let got = c.message().await;
    assert_eq!(&got.payload[..], b"new");
    assert!(got.retain);
    assert_eq!(got.properties.subscription_ids, [7]);
    options.retain_handling = RetainHandling::SendIfNew;
    options.no_local = true;
    c.subscribe_with(options.clone(), 8).await;
    c.push("app/r", b"mine", QoS::AtMostOnce, true).await;
    c.quiet().await;
    options.retain_handling = RetainHandling::Send;
    c.subscribe_with(options, 9).await;
    let got = c.message().await;
    assert_eq!((&got.payload[..], got.retain), (&b"mine"[..], true));
    bus.stop().await;
}

#[tokio::test]
async fn overlapping_filters_deliver_once_with_all_identifiers() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "shop").await;
    c.subscribe_with(plain("app/+", QoS::AtMostOnce), 1).await;
    c.subscribe_with(plain("app/x", QoS::AtLeastOnce), 2).await;
    let mut p = Login::new(V5, "shop").id("p").join(&bus).await;
    p.publish("app/x", "1", false).await;
    let got = c.message().await;
    assert_eq!(got.qos, QoS::AtLeastOnce);
    let mut ids = got.properties.subscription_ids.clone();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    c.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn properties_and_aliases_pass() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut sub = Login::new(V5, "shop").id("s").join(&bus).await;
    sub.subscribe("app/#", QoS::AtLeastOnce).await;
    let mut c = bus.client(V5, "shop").await;
    let mut properties = Properties::NONE;
    properties.topic_alias = Some(3);
    properties.content_type = Some("text/plain".into());
    properties.response_topic = Some("app/answer".into());
    properties.correlation_data = Some(Bytes::from_static(b"c"));
    properties.user = vec![("k".into(), "1".into()), ("k".into(), "2".into())];
    let mut publish = Publish {
        qos: QoS::AtMostOnce,
        topic: "app/x".into(),
        properties,
        payload: Bytes::from_static(b"1"),
        ..Publish::default()
    };
    c.send(Packet::Publish(publish.clone())).await;
    publish.topic = String::new();
    c.send(Packet::Publish(publish)).await;
    for _ in 0..2 {
        let got = sub.message().await;
        assert_eq!(got.topic, "app/x");
        assert_eq!(got.properties.topic_alias, None);
        assert_eq!(got.properties.content_type.as_deref(), Some("text/plain"));
        assert_eq!(got.properties.response_topic.as_deref(), Some("app/answer"));
        assert_eq!(got.properties.user.len(), 2);
    }
    let unknown = Publish {
        properties: {
            let mut p = Properties::NONE;
            p.topic_alias = Some(9);
            p
        },
        ..Publish::default()
    };
    c.send(Packet::Publish(unknown)).await;
    assert_eq!(c.ended().await.unwrap().reason, ReasonCode::ProtocolError);
    bus.stop().await;
}

#[tokio::test]
async fn the_newest_connection_of_a_client_wins() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut old = bus.client(V5, "modbus").await;
    let _new = bus.client(V5, "modbus").await;
    assert_eq!(
        old.ended().await.unwrap().reason,
        ReasonCode::SessionTakenOver
    );
    bus.stop().await;
}

#[tokio::test]
async fn a_will_is_sent_unless_the_client_says_goodbye() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let health = format!("{E}/sys/modbus/health");
    let mut viewer = bus.client(V5, "viewer").await;
    viewer.subscribe(&health, QoS::AtLeastOnce).await;
    let login = || Login::new(V4, "modbus").will(&health, "down", true);
    login().join(&bus).await.leave().await;
    viewer.quiet().await;
    drop(login().join(&bus).await);
    assert_eq!(&viewer.message().await.payload[..], b"down");
    let (_, ack) = Login::new(V5, "modbus")
        .will(&format!("{E}/sys/link/health"), "down", true)
        .ask(&bus)
        .await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    bus.stop().await;
}

#[tokio::test]
async fn a_delayed_will_is_cancelled_by_coming_back() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let topic = format!("{E}/sys/modbus/health");
    let mut viewer = bus.client(V5, "viewer").await;
    viewer.subscribe(&topic, QoS::AtLeastOnce).await;
    let login = |delay: u32| {
        let mut login = Login::new(V5, "modbus")
            .lasting()
            .will(&topic, "down", true);
        if let Some(will) = &mut login.0.will {
            will.properties.will_delay_interval = Some(delay);
        }
        login
    };
    drop(login(1).join(&bus).await);
    let back = login(1).join(&bus).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    viewer.quiet().await;
    drop(back);
    assert_eq!(&viewer.message().await.payload[..], b"down");
    bus.stop().await;
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_ends_the_connection() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = Login::new(V5, "modbus").keep_alive(1).join(&bus).await;
    assert_eq!(
        c.ended().await.unwrap().reason,
        ReasonCode::KeepAliveTimeout
    );
    assert_eq!(bus.probe.totals().timed_out, 1);
    bus.stop().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_that_connection_only() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut bystander = bus.client(V4, "viewer").await;
    let mut c = Client::open((&bus).into(), V5).await;
    c.send(Packet::PingReq).await;
    c.ended().await;
    let mut c = Client::open((&bus).into(), V4).await;
    c.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    c.ended().await;
    let mut c = bus.client(V5, "modbus").await;
    c.send(Packet::Connect(Box::new(Login::new(V5, "modbus").0)))
        .await;
    assert_eq!(c.ended().await.unwrap().reason, ReasonCode::ProtocolError);
    let mut c = bus.client(V5, "modbus").await;
    c.send_bytes(&[0x36, 0]).await.unwrap();
    assert_eq!(c.ended().await.unwrap().reason, ReasonCode::MalformedPacket);
    let mut c = bus.client(V5, "shop").await;
    c.push("app/x", b"1", QoS::ExactlyOnce, false).await;
    assert_eq!(c.ended().await.unwrap().reason, ReasonCode::QoSNotSupported);
    bystander.send(Packet::PingReq).await;
    assert_eq!(bystander.recv().await, Packet::PingResp);
    bus.stop().await;
}

#[tokio::test]
async fn a_payload_of_ten_megabytes_is_refused_with_its_size() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "shop").await;
    // A remaining length of ten megabytes; the rest need not come.
    c.send_bytes(&[0x32, 0x80, 0xad, 0xe2, 0x04]).await.unwrap();
    let said = c.ended().await.unwrap();
    assert_eq!(said.reason, ReasonCode::PacketTooLarge);
    let why = said.properties.reason_string.clone().unwrap();
    assert!(why.contains("10000005"), "{why}");
    bus.stop().await;
}

#[tokio::test]
async fn topics_that_begin_with_any_character_are_served() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "shop").await;
    assert_eq!(
        c.publish("é/x", "1", false).await.reason,
        ReasonCode::NotAuthorized
    );
    c.subscribe("app/é/#", QoS::AtLeastOnce).await;
    c.push("app/é/ü", b"1", QoS::AtMostOnce, false).await;
    assert_eq!(c.message().await.topic, "app/é/ü");
    bus.stop().await;
}

#[tokio::test]
async fn dollar_topics_are_served_and_not_matched_by_a_leading_wildcard() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut viewer = bus.client(V4, "viewer").await;
    viewer.subscribe("$hw/#", QoS::AtLeastOnce).await;
    let mut all = Login::new(V4, "viewer").id("all").join(&bus).await;
    all.subscribe("#", QoS::AtMostOnce).await;
    for _ in 0..2 {
        assert!(all.message().await.topic.contains("/sys/broker/"));
    }
    let mut app = bus.client(V4, "shop").await;
    let topic = "$hw/events/device/pump/twin/update";
    app.publish(topic, "{}", false).await;
    assert_eq!(viewer.message().await.topic, topic);
    all.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn a_mapper_reads_and_writes_its_own_only() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut m = bus.client(V5, "modbus").await;
    let refused = m.publish(&format!("{E}/obj/pod/d/p"), "{}", true).await;
    assert_eq!(refused.reason, ReasonCode::NotAuthorized);
    let why = refused.properties.reason_string.clone().unwrap();
    assert!(why.contains("modbus") && why.contains("obj/pod"), "{why}");
    let theirs = format!("{E}/dev/opcua/#");
    assert_eq!(
        m.subscribe(&theirs, QoS::AtLeastOnce).await,
        ReasonCode::NotAuthorized
    );
    let mut m4 = Login::new(V4, "modbus").id("modbus.4").join(&bus).await;
    assert!(m4.subscribe(&theirs, QoS::AtLeastOnce).await.is_error());
    // A wide filter shows the part that is allowed.
    assert_eq!(
        m.subscribe(&format!("{E}/dev/#"), QoS::AtLeastOnce).await,
        ReasonCode::GrantedQoS1
    );
    let mut twin = bus.client(V5, "devicetwin").await;
    twin.publish(&format!("{E}/dev/opcua/d/p/want"), "{}", true)
        .await;
    twin.publish(&format!("{E}/dev/modbus/d/p/want"), "{}", true)
        .await;
    assert_eq!(m.message().await.topic, format!("{E}/dev/modbus/d/p/want"));
    m.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn a_refused_publish_of_3_1_1_is_acknowledged_and_its_author_told() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut m = bus.client(V4, "modbus").await;
    m.subscribe(&format!("{E}/sys/modbus/refused"), QoS::AtMostOnce)
        .await;
    m.push(&format!("{E}/obj/pod/d/p"), b"{}", QoS::AtLeastOnce, true)
        .await;
    let (mut told, mut acknowledged) = (false, false);
    while !(told && acknowledged) {
        match m.recv().await {
            Packet::PubAck(_) => acknowledged = true,
            Packet::Publish(p) => {
                assert!(String::from_utf8_lossy(&p.payload).contains("may not publish"));
                told = true;
            }
            other => panic!("{other:?}"),
        }
    }
    bus.stop().await;
}

#[tokio::test]
async fn the_store_and_the_limits_are_told_at_connect() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let (_, ack) = Login::new(V5, "link").ask(&bus).await;
    let p = &ack.properties;
    assert!(p.user.iter().any(|(k, v)| k == "store_id" && v.len() == 16));
    assert_eq!(p.maximum_qos, Some(1));
    assert_eq!(p.shared_subscription_available, Some(false));
    let first = p.user.clone();
    bus.stop().await;
    let bus = Bus::start(dir.path()).await;
    let (_, ack) = Login::new(V5, "link").ask(&bus).await;
    assert_eq!(
        ack.properties.user, first,
        "the store is the same after a restart"
    );
    bus.stop().await;
}

#[tokio::test]
async fn a_forgotten_mapper_is_cut_off_and_its_state_cleared() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut m = bus.client(V5, "modbus").await;
    m.publish(&format!("{E}/mapper/modbus/hello"), "{}", true)
        .await;
    m.publish(&format!("{E}/dev/modbus/d/p/mark"), "{}", true)
        .await;
    let mut viewer = bus.client(V5, "viewer").await;
    for filter in ["mapper/#", "dev/#"] {
        viewer
            .subscribe(&format!("{E}/{filter}"), QoS::AtLeastOnce)
            .await;
        assert!(viewer.message().await.retain);
    }
    bus.grant(Grant::Forget {
        name: "modbus".into(),
    })
    .await;
    assert_eq!(
        m.ended().await.unwrap().reason,
        ReasonCode::AdministrativeAction
    );
    for _ in 0..2 {
        assert!(viewer.message().await.payload.is_empty());
    }
    let (_, ack) = Login::new(V5, "modbus").ask(&bus).await;
    assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
    bus.stop().await;
}

#[tokio::test]
async fn clients_are_told_when_the_broker_stops_and_it_stops_with_its_parent() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "modbus").await;
    bus.orphan().await.unwrap();
    assert_eq!(
        c.ended().await.unwrap().reason,
        ReasonCode::ServerShuttingDown
    );
}

#[tokio::test]
async fn messages_expire() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = bus.client(V5, "shop").await;
    let mut properties = Properties::NONE;
    properties.message_expiry_interval = Some(1);
    for (topic, retain) in [("app/short", true), ("app/long", true)] {
        if topic == "app/long" {
            properties.message_expiry_interval = Some(1000);
        }
        c.send(Packet::Publish(Publish {
            retain,
            topic: topic.into(),
            properties: properties.clone(),
            payload: Bytes::from_static(b"1"),
            ..Publish::default()
        }))
        .await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    c.subscribe("app/#", QoS::AtMostOnce).await;
    let got = c.message().await;
    assert_eq!(got.topic, "app/long");
    let left = got.properties.message_expiry_interval.unwrap();
    assert!((990..1000).contains(&left), "{left}");
    c.quiet().await;
    bus.stop().await;
}
