//! The rules of a session, one by one.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use edgebus_linkproto::*;

fn session(cluster: &str) -> Session {
    let me = Ident {
        node: "n1".into(),
        store_id: "s".into(),
        cluster_id: cluster.into(),
        version: "test".into(),
    };
    Session::new(me, Budgets::default(), Timing::default())
}

fn kind(text: &str) -> Kind {
    Kind::new(text).unwrap()
}

fn item(text: &str) -> Item {
    let body = Bytes::copy_from_slice(text.as_bytes());
    Item {
        uid: "u".into(),
        hash: Hash::of_bytes(&body),
        body,
    }
}

/// Carries frames both ways until both are silent; every effect succeeds at once. What was said, in order.
fn exchange(edge: &mut Session, cloud: &mut Session, now: u64) -> (Vec<Act>, Vec<Act>) {
    let (mut at_edge, mut at_cloud) = (Vec::new(), Vec::new());
    loop {
        let mut quiet = true;
        while let Some(frame) = edge.next_frame(now) {
            quiet = false;
            turn(cloud, frame, now, &mut at_cloud);
        }
        while let Some(frame) = cloud.next_frame(now) {
            quiet = false;
            turn(edge, frame, now, &mut at_edge);
        }
        if quiet {
            return (at_edge, at_cloud);
        }
    }
}

fn turn(to: &mut Session, frame: Frame, now: u64, log: &mut Vec<Act>) {
    for act in to.on_frame(frame, now) {
        if let Act::Apply { ticket, .. } | Act::Remove { ticket, .. } = act {
            log.extend(to.done(ticket));
        }
        log.push(act);
    }
}

fn open(edge: &mut Session, cloud: &mut Session) -> (Vec<Act>, Vec<Act>) {
    edge.connect(0);
    cloud.connect(0);
    exchange(edge, cloud, 0)
}

#[test]
fn another_cluster_deletes_nothing_and_says_why() {
    let (mut edge, mut cloud) = (session("mine"), session("other"));
    edge.receiver()
        .load(&kind("device"), "t/1", "u", Hash::of_bytes(b"1"));
    cloud.sender().replace(&kind("device"), []);
    let (at_edge, _) = open(&mut edge, &mut cloud);
    assert!(
        matches!(&at_edge[..], [Act::Closed { code: Code::CLUSTER_CHANGED, why, .. }, ..]
            if why.contains("\"mine\"") && why.contains("\"other\"")),
        "{at_edge:?}"
    );
    assert_eq!(edge.receiver().held(&kind("device")).count(), 1);
    assert!(!edge.is_open() && !cloud.is_open());
}

#[test]
fn a_cluster_without_an_id_is_never_the_right_one() {
    let (mut edge, mut cloud) = (session(""), session(""));
    let (at_edge, _) = open(&mut edge, &mut cloud);
    assert!(matches!(
        &at_edge[..],
        [
            Act::Closed {
                code: Code::CLUSTER_CHANGED,
                ..
            },
            ..
        ]
    ));
}

#[test]
fn the_last_object_may_go_when_the_list_is_complete_and_only_then() {
    for complete in [false, true] {
        let (mut edge, mut cloud) = (session("c"), session("c"));
        edge.receiver()
            .load(&kind("device"), "t/1", "u", Hash::of_bytes(b"1"));
        cloud.sender().set_complete(&kind("device"), complete);
        let (at_edge, _) = open(&mut edge, &mut cloud);
        let removed = at_edge.iter().any(|act| matches!(act, Act::Remove { .. }));
        let synced = at_edge.iter().any(|act| matches!(act, Act::Synced { .. }));
        assert_eq!((removed, synced), (complete, complete), "{at_edge:?}");
    }
}

#[test]
fn a_list_longer_than_one_chunk_is_compared_as_a_whole() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    let device = kind("device");
    let all = limits::LIST_ITEMS * 2 + 5;
    for n in 0..all {
        cloud
            .sender()
            .set(&device, &format!("t/{n}"), item("x"))
            .unwrap();
        if n % 2 == 0 {
            edge.receiver()
                .load(&device, &format!("t/{n}"), "u", Hash::of_bytes(b"x"));
        }
    }
    edge.receiver()
        .load(&device, "t/gone", "u", Hash::of_bytes(b"x"));
    cloud.sender().set_complete(&device, true);
    let (at_edge, _) = open(&mut edge, &mut cloud);
    let count = |f: fn(&Act) -> bool| at_edge.iter().filter(|a| f(a)).count();
    assert_eq!(count(|a| matches!(a, Act::Apply { .. })), all / 2);
    assert_eq!(count(|a| matches!(a, Act::Remove { .. })), 1);
    assert_eq!(count(|a| matches!(a, Act::Synced { .. })), 1);
}

#[test]
fn a_permanent_refusal_is_not_repeated_until_the_content_changes() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    let twin = kind(Kind::TWIN);
    edge.sender()
        .replace(&twin, [("t/1".to_owned(), item("a"))]);
    edge.connect(0);
    cloud.connect(0);
    let mut refusals = 0;
    let mut refuse = |edge: &mut Session, cloud: &mut Session| {
        let mut outcome = Vec::new();
        loop {
            if let Some(frame) = edge.next_frame(0) {
                for act in cloud.on_frame(frame, 0) {
                    if let Act::Apply { ticket, .. } = act {
                        refusals += 1;
                        cloud.failed(ticket, Code::UNPROCESSABLE, "never", true);
                    }
                }
            } else if let Some(frame) = cloud.next_frame(0) {
                outcome.extend(edge.on_frame(frame, 0));
            } else {
                return (refusals, outcome);
            }
        }
    };
    let (count, outcome) = refuse(&mut edge, &mut cloud);
    assert_eq!(count, 1);
    assert!(
        outcome
            .iter()
            .any(|act| matches!(act, Act::Rejected { .. })),
        "{outcome:?}"
    );
    assert!(edge.is_settled());
    edge.sender().set(&twin, "t/1", item("a")).unwrap();
    assert_eq!(refuse(&mut edge, &mut cloud).0, 1);
    edge.sender().set(&twin, "t/1", item("b")).unwrap();
    assert_eq!(refuse(&mut edge, &mut cloud).0, 2);
}

#[test]
fn a_transient_refusal_delays_its_topic_and_no_other() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    let twin = kind(Kind::TWIN);
    open(&mut edge, &mut cloud);
    edge.sender().set(&twin, "t/bad", item("a")).unwrap();
    edge.sender().set(&twin, "t/good", item("a")).unwrap();
    let mut applied = Vec::new();
    while let Some(frame) = edge.next_frame(0) {
        for act in cloud.on_frame(frame, 0) {
            let Act::Apply { ticket, put } = act else {
                continue;
            };
            if put.topic == "t/bad" {
                cloud.failed(ticket, Code::BUSY, "later", false);
            } else {
                applied.push(put.topic.clone());
                cloud.done(ticket);
            }
        }
    }
    exchange(&mut edge, &mut cloud, 1);
    assert_eq!(applied, ["t/good"]);
    let wake = edge.next_wake().unwrap();
    assert_eq!(wake, 201);
    let (_, at_cloud) = exchange(&mut edge, &mut cloud, wake);
    assert!(
        at_cloud
            .iter()
            .any(|a| matches!(a, Act::Apply { put, .. } if put.topic == "t/bad"))
    );
    assert!(edge.sender().is_settled());
}

#[test]
fn a_burst_of_changes_becomes_the_newest_one() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    let twin = kind(Kind::TWIN);
    open(&mut edge, &mut cloud);
    for n in 0..100 {
        edge.sender()
            .set(&twin, "t/1", item(&n.to_string()))
            .unwrap();
    }
    let (_, at_cloud) = exchange(&mut edge, &mut cloud, 0);
    let bodies: Vec<_> = at_cloud
        .iter()
        .filter_map(|act| match act {
            Act::Apply { put, .. } => Some(put.body.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, [Bytes::from("99")]);
}

#[test]
fn the_heartbeat_goes_first_and_only_the_newest() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    open(&mut edge, &mut cloud);
    edge.sender()
        .set(&kind(Kind::TWIN), "t/1", item("a"))
        .unwrap();
    edge.sender().beat(&kind(Kind::BEAT), "b", Bytes::from("1"));
    edge.sender().beat(&kind(Kind::BEAT), "b", Bytes::from("2"));
    let first = edge.next_frame(0).unwrap();
    assert!(
        matches!(&first, Frame::Put(put) if put.seq == 0 && put.body == "2"),
        "{first:?}"
    );
    let acts = cloud.on_frame(first, 0);
    assert!(matches!(&acts[..], [Act::Beat { .. }]));
}

#[test]
fn a_silent_line_is_pinged_and_then_given_up() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    open(&mut edge, &mut cloud);
    assert_eq!(edge.next_wake(), Some(10_000));
    assert!(edge.on_time(10_000).is_empty());
    assert_eq!(edge.next_frame(10_000), Some(Frame::Ping { at_ms: 10_000 }));
    assert_eq!(edge.next_wake(), Some(30_000));
    let acts = edge.on_time(30_000);
    assert!(
        matches!(
            &acts[..],
            [Act::Closed {
                code: Code::UNAVAILABLE,
                ..
            }]
        ),
        "{acts:?}"
    );
    assert!(
        !cloud
            .on_frame(Frame::Ping { at_ms: 5 }, 0)
            .iter()
            .any(|_| true)
    );
    assert_eq!(cloud.next_frame(0), Some(Frame::Pong { at_ms: 5 }));
}

#[test]
fn a_certificate_is_renewed_or_refused_over_the_link() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    open(&mut edge, &mut cloud);
    assert!(edge.renew("csr".into()));
    assert!(!edge.renew("csr".into()), "one question at a time");
    let (_, at_cloud) = exchange(&mut edge, &mut cloud, 0);
    let [Act::Renew { seq, csr_pem }] = &at_cloud[..] else {
        panic!("{at_cloud:?}")
    };
    assert_eq!(csr_pem, "csr");
    cloud.renewed(*seq, "cert".into(), "ca".into());
    let (at_edge, _) = exchange(&mut edge, &mut cloud, 0);
    assert!(matches!(&at_edge[..], [Act::Renewed { .. }]), "{at_edge:?}");
    assert!(edge.renew("csr".into()));
    let (_, at_cloud) = exchange(&mut edge, &mut cloud, 0);
    let [Act::Renew { seq, .. }] = &at_cloud[..] else {
        panic!("{at_cloud:?}")
    };
    cloud.refuse(*seq, Code::REVOKED, "revoked".into());
    let (at_edge, _) = exchange(&mut edge, &mut cloud, 0);
    assert!(matches!(
        &at_edge[..],
        [Act::RenewRefused {
            code: Code::REVOKED,
            ..
        }]
    ));
}

#[test]
fn what_is_said_out_of_order_closes_the_connection() {
    for frame in [
        Frame::Ack { seq: 1 },
        Frame::Hello(Hello {
            proto: 99,
            node: "n1".into(),
            store_id: String::new(),
            cluster_id: "c".into(),
            version: String::new(),
            zstd: false,
            have: Default::default(),
        }),
    ] {
        let mut edge = session("c");
        edge.connect(0);
        let acts = edge.on_frame(frame, 0);
        assert!(
            matches!(
                &acts[..],
                [Act::Closed {
                    code: Code::PROTOCOL,
                    ..
                }]
            ),
            "{acts:?}"
        );
    }
    let (mut edge, mut cloud) = (session("c"), session("c"));
    open(&mut edge, &mut cloud);
    let tail = Frame::Manifest {
        kind: kind("device"),
        part: 3,
        complete: true,
        last: true,
        entries: Vec::new(),
    };
    let acts = edge.on_frame(tail, 0);
    assert!(
        matches!(
            &acts[..],
            [Act::Closed {
                code: Code::PROTOCOL,
                ..
            }]
        ),
        "{acts:?}"
    );
}

#[test]
fn what_is_too_large_to_travel_is_refused_where_it_is_set() {
    let mut cloud = session("c");
    let huge = Item {
        body: Bytes::from(vec![0; limits::FRAME_BYTES]),
        ..item("")
    };
    let error = cloud
        .sender()
        .set(&kind("configmap"), "t/1", huge.clone())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("t/1: the body has 4194304 bytes"),
        "{error}"
    );
    let refused = cloud.sender().replace(
        &kind("configmap"),
        [("t/1".to_owned(), huge), ("t/2".to_owned(), item("x"))],
    );
    assert_eq!(refused.len(), 1);
    assert_eq!(
        cloud
            .sender()
            .topics(&kind("configmap"))
            .collect::<Vec<_>>(),
        ["t/2"]
    );
}

#[test]
fn events_stay_in_order_when_one_is_refused_for_a_while() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    open(&mut edge, &mut cloud);
    for id in 1..=5 {
        let body = Bytes::from(id.to_string());
        let event = Sequenced {
            id,
            topic: "e".into(),
            uid: String::new(),
            body,
        };
        edge.events().push(event).unwrap();
    }
    let mut order = Vec::new();
    let mut refused_once = false;
    let mut done = Vec::new();
    for now in [0, 1, 500, 501, 502] {
        loop {
            if let Some(frame) = edge.next_frame(now) {
                let mut acts = cloud.on_frame(frame, now);
                while let Some(act) = acts.pop() {
                    let Act::Apply { ticket, put } = act else {
                        continue;
                    };
                    if put.body == "2" && !refused_once {
                        refused_once = true;
                        acts.extend(cloud.failed(ticket, Code::BUSY, "later", false));
                    } else {
                        order.push(put.body.clone());
                        acts.extend(cloud.done(ticket));
                    }
                }
            } else if let Some(frame) = cloud.next_frame(now) {
                for act in edge.on_frame(frame, now) {
                    if let Act::EventDone { id, .. } = act {
                        done.push(id);
                    }
                }
            } else {
                break;
            }
        }
    }
    assert_eq!(order, ["1", "2", "3", "4", "5"].map(Bytes::from));
    assert_eq!(done, [1, 2, 3, 4, 5]);
    assert!(edge.is_settled());
}

#[test]
fn a_comparison_that_is_put_off_holds_nothing_back() {
    let (mut edge, mut cloud) = (session("c"), session("c"));
    let twin = kind(Kind::TWIN);
    open(&mut edge, &mut cloud);
    edge.sender().set(&twin, "t/1", item("a")).unwrap();
    exchange(&mut edge, &mut cloud, 0);
    // The first comparison is at once, the second only after a pause.
    for now in [1, 2] {
        cloud.receiver().load(&twin, "t/1", "", Hash::UNKNOWN);
        cloud.recheck(&twin);
        exchange(&mut edge, &mut cloud, now);
    }
    let repaired = |cloud: &mut Session| {
        let hash = *cloud.receiver().held(&twin).next().unwrap().2;
        hash != Hash::UNKNOWN
    };
    assert!(!repaired(&mut cloud), "the second one waits");
    edge.sender().set(&twin, "t/2", item("b")).unwrap();
    let (_, at_cloud) = exchange(&mut edge, &mut cloud, 3);
    assert!(
        at_cloud
            .iter()
            .any(|act| matches!(act, Act::Apply { put, .. } if put.topic == "t/2"))
    );
    let wake = edge.next_wake().unwrap();
    assert!((4..=1002).contains(&wake), "{wake}");
    exchange(&mut edge, &mut cloud, wake);
    assert!(repaired(&mut cloud));
}
