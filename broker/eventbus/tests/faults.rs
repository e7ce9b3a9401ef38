//! What happens when things break: the broker is killed, the disk is full, the file is corrupt,
//! the router's thread panics.

// What helps a test may fail like a test.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Bus, E, Login, eventually};
use edgebus_eventbus::codec::{Packet, QoS, ReasonCode, Version};

const V4: Version = Version::V4;
const V5: Version = Version::V5;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The example `broker`, which cargo builds with the tests.
fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("examples").join("broker")
}

/// A broker as a process of its own.
struct Process {
    child: Child,
    tcp: SocketAddr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(program())
            .arg(dir.join("data"))
            .arg(dir.join("run"))
            .arg("127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let grants = child.stdin.as_mut().unwrap();
        for (role, name) in [
            ("link", "link"),
            ("mapper", "modbus"),
            ("devicetwin", "devicetwin"),
        ] {
            writeln!(
                grants,
                r#"{{"do":"allow","identity":{{"role":"{role}","name":"{name}"}},"token":"{name}-token"}}"#
            )
            .unwrap();
        }
        writeln!(grants, r#"{{"do":"ready"}}"#).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let tcp = said["tcp"].as_str().unwrap().parse().unwrap();
        Self { child, tcp }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after() {
    let dir = dir();
    let mut acknowledged: BTreeMap<String, u32> = BTreeMap::new();
    let mut reports = 0u32;
    let mut count = 0u32;
    for round in 0..4 {
        let broker = Process::start(dir.path());
        let mut link = Login::new(V4, "link").join(broker.tcp).await;
        let mut mapper = Login::new(V5, "modbus").join(broker.tcp).await;
        let mut twin = Login::new(V5, "devicetwin").join(broker.tcp).await;
        for _ in 0..40 + round * 7 {
            count += 1;
            let topic = format!("{E}/obj/device/d/p{}", count % 50);
            link.publish(&topic, &count.to_string(), true).await;
            acknowledged.insert(topic, count);
            // Lazy: no fsync, and a kill still loses nothing.
            let lazy = format!("{E}/twin/d/p{}", count % 20);
            let ack = twin.publish(&lazy, &count.to_string(), true).await;
            assert_eq!(ack.reason, ReasonCode::Success);
            acknowledged.insert(lazy, count);
            let report = format!("{E}/dev/modbus/d/p/report");
            mapper.publish(&report, &reports.to_string(), false).await;
            reports += 1;
        }
        // One more of each is on its way when the broker dies.
        link.push(
            &format!("{E}/obj/device/d/late"),
            b"1",
            QoS::AtLeastOnce,
            true,
        )
        .await;
        broker.kill();
    }
    let broker = Process::start(dir.path());
    let mut twin = Login::new(V4, "devicetwin").join(broker.tcp).await;
    twin.subscribe(&format!("{E}/#"), QoS::AtLeastOnce).await;
    let mut left = acknowledged.clone();
    while !left.is_empty() {
        let next = tokio::time::timeout(common::PATIENCE / 2, twin.message()).await;
        let got = next.unwrap_or_else(|_| panic!("missing: {left:?}"));
        if let Some(want) = left.remove(&got.topic) {
            assert_eq!(
                &got.payload[..],
                want.to_string().as_bytes(),
                "{}",
                got.topic
            );
        }
    }
    let inbox = Login::new(V4, "devicetwin")
        .id("devicetwin.inbox")
        .lasting();
    let mut inbox = inbox.join(broker.tcp).await;
    for n in 0..reports {
        let got = inbox.message().await;
        assert_eq!(&got.payload[..], n.to_string().as_bytes());
    }
    broker.kill();
}

#[tokio::test]
async fn a_second_broker_in_the_same_folder_is_refused() {
    let dir = dir();
    let broker = Process::start(dir.path());
    let second = Command::new(program())
        .arg(dir.path().join("data"))
        .arg(dir.path().join("run"))
        .arg("127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another broker runs in"), "{said}");
    Login::new(V4, "link").join(broker.tcp).await;
    broker.kill();
}

#[tokio::test]
async fn a_corrupt_store_is_moved_aside_and_the_broker_serves() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let (mut link, ack) = Login::new(V5, "link").ask(&bus).await;
    let old_id = ack.properties.user.clone();
    for n in 0..500 {
        let topic = format!("{E}/obj/device/d/p{n}");
        link.push(&topic, &[b'x'; 500], QoS::AtLeastOnce, true)
            .await;
        link.recv().await;
    }
    bus.stop().await;
    let path = dir.path().join("bus.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0xee);
    std::fs::write(&path, bytes).unwrap();
    let bus = Bus::start(dir.path()).await;
    let (mut link, ack) = Login::new(V5, "link").ask(&bus).await;
    assert_ne!(ack.properties.user, old_id, "a new store has a new id");
    let topic = format!("{E}/obj/device/d/p");
    assert_eq!(
        link.publish(&topic, "{}", true).await.reason,
        ReasonCode::Success
    );
    let kept = std::fs::read_dir(dir.path()).unwrap();
    let aside = |name: &str| name.starts_with("bus.db.corrupt-");
    assert!(
        kept.flatten()
            .any(|f| aside(&f.file_name().to_string_lossy()))
    );
    bus.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_durable_topics_only_and_heals() {
    let dir = dir();
    let bus = Bus::start_with(dir.path(), |c| c.store_bytes = 256 * 1024).await;
    let mut viewer = bus.client(V5, "viewer").await;
    viewer
        .subscribe(&format!("{E}/sys/broker/health"), QoS::AtLeastOnce)
        .await;
    assert!(
        viewer
            .message()
            .await
            .payload
            .starts_with(br#"{"state":"up""#)
    );
    let mut link = bus.client(V5, "link").await;
    let big = "x".repeat(20_000);
    let mut held = Vec::new();
    let refused = loop {
        let topic = format!("{E}/obj/device/d/p{}", held.len());
        let ack = link.publish(&topic, &big, true).await;
        if ack.reason != ReasonCode::Success {
            break ack;
        }
        held.push(topic);
        assert!(held.len() < 100);
    };
    assert_eq!(refused.reason, ReasonCode::QuotaExceeded);
    let why = refused.properties.reason_string.clone().unwrap();
    assert!(why.contains("full"), "{why}");
    assert!(
        viewer
            .message()
            .await
            .payload
            .starts_with(br#"{"state":"degraded""#)
    );
    let mut v4 = Login::new(V4, "link").id("link.4").join(&bus).await;
    v4.push(
        &format!("{E}/obj/device/d/q"),
        big.as_bytes(),
        QoS::AtLeastOnce,
        true,
    )
    .await;
    assert_eq!(v4.ended().await, None);
    // What needs no disk goes on.
    let state = link.publish(&format!("{E}/link"), "{}", true).await;
    assert_eq!(state.reason, ReasonCode::Success);
    for topic in &held {
        assert_eq!(
            link.publish(topic, "", true).await.reason,
            ReasonCode::Success
        );
    }
    let again = link.publish(&held[0], &big, true).await;
    assert_eq!(again.reason, ReasonCode::Success);
    assert!(
        viewer
            .message()
            .await
            .payload
            .starts_with(br#"{"state":"up""#)
    );
    bus.stop().await;
}

#[tokio::test]
async fn clients_notice_nothing_when_the_routers_thread_panics() {
    const COUNT: usize = 3000;
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut readers = Vec::new();
    for n in 0..3 {
        let mut c = Login::new(V4, "shop").id(&format!("r{n}")).join(&bus).await;
        c.subscribe("app/#", QoS::AtLeastOnce).await;
        readers.push(tokio::spawn(async move {
            for n in 0..COUNT {
                let got = c.message().await;
                assert_eq!(&got.payload[..], n.to_string().as_bytes());
                assert!(!got.dup);
            }
        }));
    }
    let mut p = Login::new(V4, "shop").id("p").join(&bus).await;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < COUNT {
        while sent < COUNT && sent - acknowledged < 32 {
            p.push(
                "app/x",
                sent.to_string().as_bytes(),
                QoS::AtLeastOnce,
                false,
            )
            .await;
            sent += 1;
        }
        if acknowledged % 500 == 250 {
            bus.probe.panic_router().await;
        }
        assert!(matches!(p.recv().await, Packet::PubAck(_)));
        acknowledged += 1;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(bus.probe.router().deaths >= 3, "{:?}", bus.probe.router());
    let bus = bus;
    eventually("the count is right", || {
        bus.probe.totals().delivered >= 3 * COUNT as u64
    })
    .await;
    bus.stop().await;
}

#[tokio::test]
async fn random_bytes_and_mangled_packets_cost_their_own_connection_only() {
    let dir = dir();
    let bus = Bus::start(dir.path()).await;
    let mut bystander = bus.client(V4, "viewer").await;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..300 {
        let version = if round % 2 == 0 { V4 } else { V5 };
        let mut bytes = bytes::BytesMut::new();
        for packet in sample(version) {
            edgebus_eventbus::codec::encode(&packet, version, &mut bytes).unwrap();
        }
        for _ in 0..1 + random() % 4 {
            let at = usize::try_from(random()).unwrap_or(0) % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        let mut c = Login::new(version, "shop")
            .id(&format!("mad{round}"))
            .join(&bus)
            .await;
        // The broker may have ended it already.
        c.send_bytes(&bytes).await.ok();
        let mut c = common::Client::open((&bus).into(), version).await;
        c.send_bytes(&bytes).await.ok();
    }
    bystander.send(Packet::PingReq).await;
    assert_eq!(bystander.recv().await, Packet::PingResp);
    let mut link = bus.client(V5, "link").await;
    let topic = format!("{E}/obj/device/d/p");
    assert_eq!(
        link.publish(&topic, "{}", true).await.reason,
        ReasonCode::Success
    );
    bus.stop().await;
}

/// One of each packet that a client sends often.
fn sample(version: Version) -> Vec<Packet> {
    use edgebus_eventbus::codec::{Ack, Properties, Publish, Subscribe, Unsubscribe};
    let properties = Properties::NONE;
    vec![
        Packet::Subscribe(Subscribe {
            packet_id: 1,
            properties: properties.clone(),
            filters: vec![common::plain("app/+/x", QoS::AtLeastOnce)],
        }),
        Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            topic: "app/a/x".into(),
            packet_id: 2,
            payload: format!("{version:?}").into(),
            ..Publish::default()
        }),
        Packet::PubAck(Ack::ok(1)),
        Packet::PingReq,
        Packet::Unsubscribe(Unsubscribe {
            packet_id: 3,
            properties,
            filters: vec!["app/+/x".into()],
        }),
    ]
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_and_ended() {
    let dir = dir();
    let bus = Bus::start_with(dir.path(), |c| {
        c.max_unknown = 4;
        c.connect_timeout = std::time::Duration::from_millis(300);
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(bus.tcp).await.unwrap());
    }
    let mut c = bus.client(V5, "link").await;
    c.send(Packet::PingReq).await;
    assert_eq!(c.recv().await, Packet::PingResp);
    assert!(bus.probe.totals().turned_away >= 16);
    bus.stop().await;
}
