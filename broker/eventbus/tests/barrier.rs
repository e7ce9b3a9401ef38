//! SUBSCRIBE as a barrier: whoever subscribes and then publishes to itself has seen every
//! retained match when its own message comes back, and never sees a topic go back in time,
//! whatever is put and cleared meanwhile. Over sockets, against the real broker.

// What helps a test may fail like a test.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Bus, Client, E, Login};
use edgebus_eventbus::codec::{Packet, QoS, Version};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const TOPICS: usize = 150;

#[derive(Debug, Clone)]
struct Plan {
    version: bool,
    lasting: bool,
    reader_qos: bool,
    /// (topic, put or clear), walked again and again by the writer.
    changes: Vec<(usize, bool)>,
    /// Changes before each subscription.
    pauses: Vec<u8>,
    durable: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        any::<(bool, bool, bool, bool)>(),
        prop::collection::vec((0..TOPICS, prop::bool::weighted(0.7)), 20..200),
        prop::collection::vec(0u8..60, 3..6),
    )
        .prop_map(
            |((version, lasting, reader_qos, durable), changes, pauses)| Plan {
                version,
                lasting,
                reader_qos,
                changes,
                pauses,
                durable,
            },
        )
}

fn topic(plan: &Plan, n: usize) -> String {
    if plan.durable {
        format!("{E}/obj/device/d/p{n}")
    } else {
        // Retained in memory only.
        format!("{E}/dev/link/d/p{n}/state")
    }
}

/// What the writer knows: per topic, the last acknowledged change and the last begun.
#[derive(Default)]
struct Ledger {
    /// topic → (count, present) acknowledged.
    sure: BTreeMap<usize, (u64, bool)>,
    /// topics with a change on its way.
    open: BTreeSet<usize>,
}

async fn write(
    mut client: Client,
    plan: Plan,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    seen: tokio::sync::mpsc::Sender<()>,
) {
    let mut count = 0;
    'all: loop {
        for (n, put) in &plan.changes {
            if stop.load(Ordering::Relaxed) {
                break 'all;
            }
            count += 1;
            ledger.lock().unwrap().open.insert(*n);
            let payload = if *put {
                count.to_string()
            } else {
                String::new()
            };
            client.publish(&topic(&plan, *n), &payload, true).await;
            let mut ledger = ledger.lock().unwrap();
            ledger.open.remove(n);
            ledger.sure.insert(*n, (count, *put));
            drop(ledger);
            // Nobody may be waiting for a change.
            seen.try_send(()).ok();
        }
    }
}

async fn check(plan: Plan) {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::start(dir.path()).await;
    let version = if plan.version {
        Version::V5
    } else {
        Version::V4
    };
    let (writer, reader, filter) = if plan.durable {
        ("link", "devicetwin", format!("{E}/obj/device/+/+"))
    } else {
        // A mapper of this name owns the topics.
        bus.grant(edgebus_bus::unit::Grant::Allow {
            identity: edgebus_bus::Identity::new(edgebus_bus::Role::Mapper, "link"),
            token: "link-token".into(),
        })
        .await;
        ("link", "devicetwin", format!("{E}/dev/+/d/+/state"))
    };
    let client = loop {
        // The grant above may still be on its way.
        let mut client = bus.client(version, writer).await;
        if client
            .publish(&topic(&plan, TOPICS), "0", true)
            .await
            .reason
            == edgebus_eventbus::codec::ReasonCode::Success
            || plan.durable
        {
            break client;
        }
    };
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, mut changed) = tokio::sync::mpsc::channel(1024);
    let writing = tokio::spawn(write(
        client,
        plan.clone(),
        ledger.clone(),
        stop.clone(),
        seen,
    ));
    let qos = if plan.reader_qos {
        QoS::AtLeastOnce
    } else {
        QoS::AtMostOnce
    };
    for (round, pause) in plan.pauses.iter().enumerate() {
        for _ in 0..*pause {
            changed.recv().await.unwrap();
        }
        let mut login = Login::new(version, reader).id(&format!("{reader}.r{round}"));
        if plan.lasting {
            login = login.lasting();
        }
        let mut c = login.join(&bus).await;
        let echo = format!("{E}/echo/{reader}/{round}");
        c.subscribe(&echo, QoS::AtLeastOnce).await;
        // Topics that exist now and stay untouched until the echo comes must be in the snapshot.
        let before = snapshot(&ledger);
        c.subscribe(&filter, qos).await;
        c.push(&echo, b"e", QoS::AtLeastOnce, false).await;
        let mut state: BTreeMap<String, u64> = BTreeMap::new();
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            let packet = c.recv().await;
            let Packet::Publish(p) = packet else { continue };
            c.acknowledge(&p).await;
            if p.topic == echo {
                break;
            }
            see(&p.topic, &p.payload, &mut state, &mut newest);
        }
        let after = snapshot(&ledger);
        for (n, (count, present)) in &before {
            if after.get(n) == Some(&(*count, *present)) && *present {
                let name = topic(&plan, *n);
                assert!(
                    state.contains_key(&name),
                    "{name} was there all the time and is missing"
                );
            }
        }
        if round + 1 == plan.pauses.len() {
            stop.store(true, Ordering::Relaxed);
            while changed.recv().await.is_some() {}
            drain(&mut c, &mut state, &mut newest).await;
            for (n, (count, present)) in &ledger.lock().unwrap().sure {
                let name = topic(&plan, *n);
                let want = present.then_some(*count);
                assert_eq!(state.get(&name).copied(), want, "{name}");
            }
        }
    }
    writing.await.unwrap();
    bus.stop().await;
}

fn snapshot(ledger: &Mutex<Ledger>) -> BTreeMap<usize, (u64, bool)> {
    let ledger = ledger.lock().unwrap();
    let quiet = ledger.sure.iter().filter(|(n, _)| !ledger.open.contains(n));
    quiet.map(|(n, s)| (*n, *s)).collect()
}

fn see(
    name: &str,
    payload: &[u8],
    state: &mut BTreeMap<String, u64>,
    newest: &mut BTreeMap<String, u64>,
) {
    if payload.is_empty() {
        state.remove(name);
        return;
    }
    let count: u64 = std::str::from_utf8(payload).unwrap().parse().unwrap();
    let old = newest.insert(name.to_owned(), count);
    assert!(
        old.is_none_or(|old| old < count),
        "{name} went from {old:?} to {count}"
    );
    state.insert(name.to_owned(), count);
}

async fn drain(
    c: &mut Client,
    state: &mut BTreeMap<String, u64>,
    newest: &mut BTreeMap<String, u64>,
) {
    while let Ok(Some(packet)) = tokio::time::timeout(common::QUIET, c.try_recv()).await {
        if let Packet::Publish(p) = packet {
            c.acknowledge(&p).await;
            see(&p.topic, &p.payload, state, newest);
        }
    }
}

#[test]
fn a_subscriber_misses_nothing_and_sees_nothing_go_back() {
    let mut config = Config::with_cases(24);
    config.max_shrink_iters = 20;
    config.failure_persistence = None;
    let mut runner = TestRunner::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runner
        .run(&plans(), |plan| {
            runtime.block_on(check(plan));
            Ok(())
        })
        .unwrap();
}
