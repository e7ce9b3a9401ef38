//! Persistent sessions and inboxes: what waits for an absent client, and what redelivery looks
//! like.

// What helps a test may fail like a test.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Bus, E, Login, eventually, plain};
use edgebus_eventbus::codec::{Ack, Packet, QoS, ReasonCode, Version};

const V4: Version = Version::V4;
const V5: Version = Version::V5;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn report(n: u32) -> (String, String) {
    (format!("{E}/dev/modbus/d/p/report"), n.to_string())
}

#[tokio::test]
async fn messages_wait_for_an_absent_session_and_come_in_order() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    for version in [V4, V5] {
        let login = || Login::new(version, "shop").id("s").lasting();
        let mut c = login().join(&bus).await;
        c.subscribe("app/#", QoS::AtLeastOnce).await;
        c.leave().await;
        let mut p = Login::new(version, "shop").id("p").join(&bus).await;
        for n in 0..200 {
            p.publish("app/x", &n.to_string(), false).await;
        }
        let (mut c, ack) = login().ask(&bus).await;
        assert!(ack.session_present);
        for n in 0..200 {
            let got = c.message().await;
            assert_eq!(&got.payload[..], n.to_string().as_bytes());
            assert!(!got.dup);
        }
        p.publish("app/x", "live", false).await;
        assert_eq!(&c.message().await.payload[..], b"live");
        c.leave().await;
        // A clean start discards it.
        let (c, ack) = Login::new(version, "shop").id("s").ask(&bus).await;
        assert!(!ack.session_present);
        c.leave().await;
        let (c, ack) = login().ask(&bus).await;
        assert!(!ack.session_present);
        c.leave().await;
        Login::new(version, "shop")
            .id("s")
            .join(&bus)
            .await
            .leave()
            .await;
    }
    bus.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_its_id_and_dup() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let login = || Login::new(V4, "shop").id("s").lasting();
    let mut c = login().join(&bus).await;
    c.subscribe("app/#", QoS::AtLeastOnce).await;
    let mut p = Login::new(V4, "shop").id("p").join(&bus).await;
    for n in 0..3 {
        p.publish("app/x", &n.to_string(), false).await;
    }
    let first = c.unacknowledged().await;
    let second = c.unacknowledged().await;
    let third = c.unacknowledged().await;
    c.acknowledge(&second).await;
    c.send(Packet::PingReq).await;
    assert_eq!(c.recv().await, Packet::PingResp);
    drop(c);
    let mut c = login().join(&bus).await;
    for old in [first, third] {
        let again = c.message().await;
        assert!(again.dup);
        assert_eq!(
            (again.packet_id, again.payload),
            (old.packet_id, old.payload)
        );
    }
    c.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn sessions_and_what_waits_survive_the_broker() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let login = || Login::new(V5, "shop").id("s").lasting();
    let mut c = login().join(&bus).await;
    c.subscribe_with(plain("app/#", QoS::AtLeastOnce), 5).await;
    let mut p = Login::new(V5, "shop").id("p").join(&bus).await;
    p.publish("app/x", "1", false).await;
    let sent = c.unacknowledged().await;
    assert!(!sent.dup);
    bus.stop().await;
    let bus = Bus::start(dir.path()).await;
    let (mut c, ack) = login().ask(&bus).await;
    assert!(ack.session_present);
    let got = c.message().await;
    assert_eq!((&got.payload[..], got.dup), (&b"1"[..], true));
    assert_eq!(got.properties.subscription_ids, [5]);
    let mut p = Login::new(V5, "shop").id("p").join(&bus).await;
    p.publish("app/x", "2", false).await;
    assert_eq!(&c.message().await.payload[..], b"2");
    bus.stop().await;
}

#[tokio::test]
async fn an_inbox_collects_before_its_reader_ever_comes() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut m = bus.client(V4, "modbus").await;
    for n in 0..300 {
        let (topic, payload) = report(n);
        m.publish(&topic, &payload, false).await;
    }
    m.push(
        "$hw/events/device/pump/twin/update",
        b"hw",
        QoS::AtMostOnce,
        false,
    )
    .await;
    m.publish(&format!("{E}/event/modbus"), "event", false)
        .await;
    bus.stop().await;
    let bus = Bus::start(dir.path()).await;
    let login = || {
        Login::new(V4, "devicetwin")
            .id("devicetwin.inbox")
            .lasting()
    };
    let (mut twin, ack) = login().ask(&bus).await;
    assert!(ack.session_present);
    for n in 0..300u32 {
        let got = twin.unacknowledged().await;
        assert_eq!(&got.payload[..], n.to_string().as_bytes());
        if n < 100 {
            twin.acknowledge(&got).await;
        } else if n == 140 {
            break;
        }
        if n == 99 {
            twin.send(Packet::PingReq).await;
            loop {
                if twin.recv().await == Packet::PingResp {
                    break;
                }
            }
            break;
        }
    }
    drop(twin);
    let mut twin = login().join(&bus).await;
    for n in 100..300u32 {
        assert_eq!(&twin.message().await.payload[..], n.to_string().as_bytes());
    }
    let hw = twin.message().await;
    assert_eq!((&hw.payload[..], hw.qos), (&b"hw"[..], QoS::AtLeastOnce));
    twin.quiet().await;
    let mut link = Login::new(V5, "link")
        .id("link.inbox")
        .lasting()
        .join(&bus)
        .await;
    assert_eq!(&link.message().await.payload[..], b"event");
    let (_, ack) = Login::new(V5, "link").id("link.inbox").ask(&bus).await;
    assert_eq!(
        ack.reason,
        ReasonCode::NotAuthorized,
        "an inbox is not discarded"
    );
    bus.stop().await;
}

#[tokio::test]
async fn a_full_inbox_refuses_the_publisher_and_no_other() {
    let dir = dir();
    let bus = Bus::start_with(dir.path(), |c| c.inbox_messages = 3).await;
    let mut m = bus.client(V5, "modbus").await;
    let (topic, payload) = report(1);
    for _ in 0..3 {
        assert_eq!(
            m.publish(&topic, &payload, false).await.reason,
            ReasonCode::Success
        );
    }
    let refused = m.publish(&topic, &payload, false).await;
    assert_eq!(refused.reason, ReasonCode::QuotaExceeded);
    let why = refused.properties.reason_string.clone().unwrap();
    assert!(why.contains("inbox of devicetwin"), "{why}");
    let ok = m.publish(&format!("{E}/event/modbus"), "1", false).await;
    assert_eq!(ok.reason, ReasonCode::Success);
    // 3.1.1 can only be told by the end of its connection.
    let mut m4 = Login::new(V4, "modbus").id("modbus.4").join(&bus).await;
    m4.push(&topic, b"1", QoS::AtLeastOnce, false).await;
    assert_eq!(m4.ended().await, None);
    let mut twin = Login::new(V5, "devicetwin")
        .id("devicetwin.inbox")
        .lasting()
        .join(&bus)
        .await;
    for _ in 0..3 {
        twin.message().await;
    }
    eventually("there is room again", || true).await;
    loop {
        let again = m.publish(&topic, "late", false).await;
        if again.reason == ReasonCode::Success {
            break;
        }
    }
    assert_eq!(&twin.message().await.payload[..], b"late");
    bus.stop().await;
}

#[tokio::test]
async fn the_receive_maximum_of_a_client_is_kept() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut c = Login::new(V5, "shop")
        .with(|p| p.receive_maximum = Some(2))
        .join(&bus)
        .await;
    c.subscribe("app/#", QoS::AtLeastOnce).await;
    let mut p = Login::new(V5, "shop").id("p").join(&bus).await;
    for n in 0..5 {
        p.publish("app/x", &n.to_string(), false).await;
    }
    let one = c.unacknowledged().await;
    let two = c.unacknowledged().await;
    c.quiet().await;
    c.send(Packet::PubAck(Ack::ok(two.packet_id))).await;
    let three = c.unacknowledged().await;
    assert_eq!(&three.payload[..], b"2");
    c.quiet().await;
    c.acknowledge(&one).await;
    c.acknowledge(&three).await;
    assert_eq!(&c.message().await.payload[..], b"3");
    assert_eq!(&c.message().await.payload[..], b"4");
    bus.stop().await;
}

#[tokio::test]
async fn thousands_of_retained_messages_are_replayed_whole() {
    const COUNT: usize = 3000;
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut link = bus.client(V4, "link").await;
    for n in 0..COUNT {
        let topic = format!("{E}/obj/device/d/p{n:05}");
        link.push(&topic, b"{}", QoS::AtLeastOnce, true).await;
        if n % 50 == 49 {
            for _ in 0..50 {
                assert!(matches!(link.recv().await, Packet::PubAck(_)));
            }
        }
    }
    for (version, qos) in [(V4, QoS::AtLeastOnce), (V5, QoS::AtMostOnce)] {
        for lasting in [false, true] {
            let mut login = Login::new(version, "devicetwin").id("devicetwin.r");
            if lasting {
                login = login.lasting();
            }
            let mut c = login.join(&bus).await;
            c.subscribe(&format!("{E}/obj/device/+/+"), qos).await;
            for n in 0..COUNT {
                let got = c.message().await;
                assert!(got.retain);
                assert_eq!(got.topic, format!("{E}/obj/device/d/p{n:05}"));
            }
            c.quiet().await;
            c.leave().await;
        }
    }
    bus.stop().await;
}

#[tokio::test]
async fn a_replay_that_was_cut_short_is_repeated_when_the_session_resumes() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut link = bus.client(V4, "link").await;
    for n in 0..200 {
        link.publish(&format!("{E}/obj/device/d/p{n:05}"), "{}", true)
            .await;
    }
    let login = || Login::new(V4, "devicetwin").id("devicetwin.s").lasting();
    let mut c = login().join(&bus).await;
    c.subscribe(&format!("{E}/obj/#"), QoS::AtLeastOnce).await;
    for _ in 0..20 {
        c.message().await;
    }
    drop(c);
    let (mut c, ack) = login().ask(&bus).await;
    assert!(ack.session_present);
    for n in 0..200 {
        assert_eq!(c.message().await.topic, format!("{E}/obj/device/d/p{n:05}"));
    }
    c.send(Packet::PingReq).await;
    assert_eq!(c.recv().await, Packet::PingResp);
    c.leave().await;
    let mut c = login().join(&bus).await;
    c.quiet().await;
    bus.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_bounded_and_costs_nobody_else() {
    let dir = dir();
    let bus = Bus::start_with(dir.path(), |c| {
        c.queue_messages = 100;
        c.queue_bytes = 1024 * 1024;
    })
    .await;
    let mut zero = Login::new(V4, "shop").id("zero").join(&bus).await;
    zero.subscribe("app/#", QoS::AtMostOnce).await;
    let mut one = Login::new(V5, "shop").id("one").join(&bus).await;
    one.subscribe("app/#", QoS::AtLeastOnce).await;
    let mut fine = Login::new(V4, "shop").id("fine").join(&bus).await;
    fine.subscribe("app/#", QoS::AtLeastOnce).await;
    let mut p = Login::new(V4, "shop").id("p").join(&bus).await;
    let big = "x".repeat(60_000);
    for n in 0..300 {
        p.publish("app/x", &format!("{n} {big}"), false).await;
        let got = fine.message().await;
        assert!(got.payload.starts_with(n.to_string().as_bytes()));
    }
    assert_eq!(one.ended().await.unwrap().reason, ReasonCode::QuotaExceeded);
    assert!(bus.probe.totals().dropped > 0);
    // The one that asked for QoS 0 lost some and is still served.
    p.push("app/last", b"", QoS::AtMostOnce, false).await;
    while zero.message().await.topic != "app/last" {
        if zero_done(&bus) {
            p.push("app/last", b"", QoS::AtMostOnce, false).await;
        }
    }
    bus.stop().await;
}

fn zero_done(bus: &Bus) -> bool {
    bus.probe.totals().connected > 0
}
