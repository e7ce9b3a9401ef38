//! Whatever breaks, both ends end up equal, nothing is deleted that should be there, and no lane overflows.
//!
//! A world of two sessions, an edge store behind a queue (the bus), a Kubernetes that answers out of order,
//! and a network that keeps order within a lane but not between lanes, doubles frames and is cut at any point.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use edgebus_linkproto::*;
use proptest::prelude::*;

const CLUSTER: &str = "cluster-1";
const DOWN: [&str; 2] = ["device", "configmap"];

type Version = (String, u64);
type Store = BTreeMap<(Kind, String), Version>;

#[derive(Debug, Clone)]
enum Step {
    CloudSet {
        kind: usize,
        topic: u8,
    },
    CloudDelete {
        kind: usize,
        topic: u8,
    },
    CloudRecreate {
        kind: usize,
        topic: u8,
    },
    /// cloud-bridge finishes its list of a kind.
    CloudListed {
        kind: usize,
    },
    TwinSet {
        topic: u8,
    },
    Event,
    /// One frame of some lane arrives.
    Down(u8),
    Up(u8),
    DownTwice(u8),
    /// The bus commits the oldest write, and maybe the next ones.
    Bus(u8),
    BusFails,
    Kube {
        pick: u8,
        result: u8,
    },
    Cut,
    LinkCrash {
        committed: u8,
    },
    StoreLost,
    BridgeCrash,
    Recheck,
    /// Somebody spoils a twin in Kubernetes behind everybody's back, and the bridge notices.
    KubeSpoilt {
        topic: u8,
    },
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 0..6u8).prop_map(|(kind, topic)| Step::CloudSet { kind, topic }),
        3 => (0..2usize, 0..6u8).prop_map(|(kind, topic)| Step::CloudDelete { kind, topic }),
        2 => (0..2usize, 0..6u8).prop_map(|(kind, topic)| Step::CloudRecreate { kind, topic }),
        4 => (0..2usize).prop_map(|kind| Step::CloudListed { kind }),
        5 => (0..6u8).prop_map(|topic| Step::TwinSet { topic }),
        4 => Just(Step::Event),
        20 => any::<u8>().prop_map(Step::Down),
        20 => any::<u8>().prop_map(Step::Up),
        2 => any::<u8>().prop_map(Step::DownTwice),
        10 => (1..4u8).prop_map(Step::Bus),
        1 => Just(Step::BusFails),
        10 => (any::<u8>(), 0..8u8).prop_map(|(pick, result)| Step::Kube { pick, result }),
        2 => Just(Step::Cut),
        1 => any::<u8>().prop_map(|committed| Step::LinkCrash { committed }),
        1 => Just(Step::StoreLost),
        1 => Just(Step::BridgeCrash),
        1 => Just(Step::Recheck),
        1 => (0..6u8).prop_map(|topic| Step::KubeSpoilt { topic }),
        4 => (0..5000u16).prop_map(Step::Wait),
    ]
}

#[derive(Debug)]
enum BusOp {
    Put {
        ticket: Ticket,
        key: (Kind, String),
        version: Version,
    },
    Remove {
        ticket: Ticket,
        key: (Kind, String),
    },
}

/// Frames on their way, one queue per lane; whole frames, encoded.
#[derive(Default)]
struct Wire(BTreeMap<u8, VecDeque<Bytes>>);

impl Wire {
    fn push(&mut self, frame: &Frame) {
        let lane = match frame {
            Frame::Put(put) => Lane::of(&put.kind) as u8 + 1,
            Frame::Del { kind, .. }
            | Frame::Manifest { kind, .. }
            | Frame::Want { kind, .. }
            | Frame::Same { kind, .. }
            | Frame::Have { kind, .. } => Lane::of(kind) as u8 + 1,
            _ => 0,
        };
        let mut out = BytesMut::new();
        encode(frame, &mut out).unwrap();
        self.0.entry(lane).or_default().push_back(out.freeze());
    }

    fn pop(&mut self, pick: u8) -> Option<Frame> {
        let lanes: Vec<u8> = self
            .0
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(l, _)| *l)
            .collect();
        let lane = *lanes.get(usize::from(pick) % lanes.len().max(1))?;
        let bytes = self.0.get_mut(&lane)?.pop_front()?;
        Some(decode(bytes).unwrap().remove(0))
    }

    /// The greeting comes before everything else: it is the first thing on a real connection.
    fn greeting(&mut self) -> Option<Frame> {
        let bytes = self.0.get_mut(&0)?.pop_front()?;
        Some(decode(bytes).unwrap().remove(0))
    }
}

struct World {
    now: u64,
    budgets: Budgets,
    edge: Session,
    cloud: Session,
    down: Wire,
    up: Wire,
    connected: bool,
    /// Truth in Kubernetes of what goes down.
    truth: Store,
    listed: BTreeSet<Kind>,
    counter: u64,
    /// The retained topics of the bus, and writes to it that are under way.
    bus: Store,
    bus_queue: VecDeque<BusOp>,
    store_id: u64,
    twins: BTreeMap<String, Version>,
    spool: VecDeque<(u64, u64)>,
    fed: u64,
    events_sent: u64,
    /// What Kubernetes took, in order.
    kube_twins: BTreeMap<String, Version>,
    kube_pending: Vec<(Ticket, Put)>,
    kube_events: Vec<u64>,
    kube_writes: u64,
    applies: u64,
    calm: bool,
    synced: BTreeSet<Kind>,
}

fn kind(text: &str) -> Kind {
    Kind::new(text).unwrap()
}

fn item(version: &Version) -> Item {
    let body = Bytes::from(version.1.to_be_bytes().to_vec());
    Item {
        uid: version.0.clone(),
        hash: Hash::of_bytes(&body),
        body,
    }
}

fn version_of(put: &Put) -> Version {
    (
        put.uid.clone(),
        u64::from_be_bytes(put.body[..8].try_into().unwrap()),
    )
}

fn hash_of(version: &Version) -> Hash {
    Hash::of_bytes(&version.1.to_be_bytes())
}

fn ident(store: u64) -> Ident {
    Ident {
        node: "n1".into(),
        store_id: store.to_string(),
        cluster_id: CLUSTER.into(),
        version: "test".into(),
    }
}

impl World {
    fn new() -> World {
        let budgets = Budgets {
            object: Budget {
                frames: 3,
                bytes: 4096,
            },
            twin: Budget {
                frames: 2,
                bytes: 4096,
            },
            event: Budget {
                frames: 3,
                bytes: 4096,
            },
            ..Budgets::default()
        };
        let mut world = World {
            now: 0,
            edge: Session::new(ident(0), budgets.clone(), Timing::default()),
            cloud: Session::new(ident(0), budgets.clone(), Timing::default()),
            budgets,
            down: Wire::default(),
            up: Wire::default(),
            connected: false,
            truth: Store::new(),
            listed: BTreeSet::new(),
            counter: 0,
            bus: Store::new(),
            bus_queue: VecDeque::new(),
            store_id: 0,
            twins: BTreeMap::new(),
            spool: VecDeque::new(),
            fed: 0,
            events_sent: 0,
            kube_twins: BTreeMap::new(),
            kube_pending: Vec::new(),
            kube_events: Vec::new(),
            kube_writes: 0,
            applies: 0,
            calm: false,
            synced: BTreeSet::new(),
        };
        world.start_edge();
        world
    }

    fn key(kind_at: usize, topic: u8) -> (Kind, String) {
        (
            kind(DOWN[kind_at]),
            format!("edge/v1/obj/{}/ns/{topic}", DOWN[kind_at]),
        )
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn step(&mut self, step: &Step) {
        if !self.connected && !matches!(step, Step::Cut) {
            self.connect();
        }
        match step {
            Step::CloudSet { kind, topic } => {
                let key = Self::key(*kind, *topic);
                let n = self.next();
                let uid = self
                    .truth
                    .get(&key)
                    .map_or(format!("uid-{n}"), |(uid, _)| uid.clone());
                self.cloud_set(key, (uid, n));
            }
            Step::CloudRecreate { kind, topic } => {
                let n = self.next();
                self.cloud_set(Self::key(*kind, *topic), (format!("uid-{n}"), n));
            }
            Step::CloudDelete { kind, topic } => {
                let key = Self::key(*kind, *topic);
                self.truth.remove(&key);
                self.cloud.sender().remove(&key.0, &key.1);
            }
            Step::CloudListed { kind: at } => self.list(&kind(DOWN[*at])),
            Step::TwinSet { topic } => {
                let n = self.next();
                let topic = format!("edge/v1/twin/ns/{topic}");
                let version = (String::new(), n);
                self.edge
                    .sender()
                    .set(&kind(Kind::TWIN), &topic, item(&version))
                    .unwrap();
                self.twins.insert(topic, version);
            }
            Step::Event => {
                self.events_sent += 1;
                self.spool.push_back((self.events_sent, self.events_sent));
            }
            Step::Down(pick) => {
                if let Some(frame) = self.down.pop(*pick) {
                    self.edge_gets(frame);
                }
            }
            Step::DownTwice(pick) => {
                if let Some(frame) = self.down.pop(*pick) {
                    if !matches!(frame, Frame::Hello(_)) {
                        self.edge_gets(frame.clone());
                    }
                    self.edge_gets(frame);
                }
            }
            Step::Up(pick) => {
                if let Some(frame) = self.up.pop(*pick) {
                    self.cloud_gets(frame);
                }
            }
            Step::Bus(count) => (0..*count).for_each(|_| self.bus_commit()),
            Step::BusFails => self.bus_fail(),
            Step::Kube { pick, result } => self.kube_answer(*pick, *result),
            Step::Cut => self.cut(),
            Step::LinkCrash { committed } => {
                self.cut();
                for _ in 0..*committed % 8 {
                    self.bus_commit();
                }
                self.bus_queue.clear();
                self.start_edge();
            }
            Step::StoreLost => {
                self.cut();
                self.bus_queue.clear();
                self.bus.clear();
                self.store_id += 1;
                self.start_edge();
            }
            Step::BridgeCrash => {
                self.cut();
                self.listed.clear();
                self.kube_pending.clear();
                self.cloud = Session::new(ident(0), self.budgets.clone(), Timing::default());
            }
            Step::Recheck => {
                for name in DOWN {
                    self.edge.recheck(&kind(name));
                }
                self.cloud.recheck(&kind(Kind::TWIN));
            }
            Step::KubeSpoilt { topic } => {
                let topic = format!("edge/v1/twin/ns/{topic}");
                let twin = kind(Kind::TWIN);
                if self.cloud.receiver().uid(&twin, &topic).is_some() {
                    self.kube_twins.remove(&topic);
                    self.cloud.receiver().load(&twin, &topic, "", Hash::UNKNOWN);
                    self.cloud.recheck(&twin);
                }
            }
            Step::Wait(ms) => self.now += u64::from(*ms),
        }
        self.pump();
    }

    /// A fresh link process: what it knows it reads from the bus.
    fn start_edge(&mut self) {
        self.edge = Session::new(
            ident(self.store_id),
            self.budgets.clone(),
            Timing::default(),
        );
        for ((kind, topic), version) in &self.bus {
            self.edge
                .receiver()
                .load(kind, topic, &version.0, hash_of(version));
        }
        let twins: Vec<_> = self
            .twins
            .iter()
            .map(|(t, v)| (t.clone(), item(v)))
            .collect();
        self.edge.sender().replace(&kind(Kind::TWIN), twins);
        self.fed = 0;
    }

    fn connect(&mut self) {
        (self.down, self.up) = (Wire::default(), Wire::default());
        self.edge.connect(self.now);
        self.cloud.connect(self.now);
        self.connected = true;
        self.pump();
        let to_cloud = self.up.greeting().unwrap();
        let to_edge = self.down.greeting().unwrap();
        self.cloud_gets(to_cloud);
        self.edge_gets(to_edge);
    }

    fn cut(&mut self) {
        self.connected = false;
        self.edge.disconnect();
        self.cloud.disconnect();
        self.kube_pending.clear();
    }

    fn cloud_set(&mut self, key: (Kind, String), version: Version) {
        self.cloud
            .sender()
            .set(&key.0, &key.1, item(&version))
            .unwrap();
        self.truth.insert(key, version);
    }

    fn list(&mut self, kind: &Kind) {
        let of_kind = self.truth.iter().filter(|((k, _), _)| k == kind);
        let items: Vec<_> = of_kind.map(|((_, t), v)| (t.clone(), item(v))).collect();
        assert!(self.cloud.sender().replace(kind, items).is_empty());
        self.listed.insert(kind.clone());
    }

    fn pump(&mut self) {
        for (id, n) in self
            .spool
            .iter()
            .filter(|(id, _)| *id > self.fed)
            .copied()
            .collect::<Vec<_>>()
        {
            let body = Bytes::from(n.to_be_bytes().to_vec());
            let event = Sequenced {
                id,
                topic: "edge/v1/event/x".into(),
                uid: String::new(),
                body,
            };
            if self.edge.events().push(event).is_err() {
                break;
            }
            self.fed = id;
        }
        if !self.connected {
            return;
        }
        let dead = [self.edge.on_time(self.now), self.cloud.on_time(self.now)].concat();
        assert!(dead.iter().all(|act| matches!(
            act,
            Act::Closed {
                code: Code::UNAVAILABLE,
                ..
            }
        )));
        if !dead.is_empty() {
            return self.cut();
        }
        while let Some(frame) = self.edge.next_frame(self.now) {
            self.up.push(&frame);
        }
        while let Some(frame) = self.cloud.next_frame(self.now) {
            self.down.push(&frame);
        }
        for (lane, budget) in [
            (Lane::Object, self.budgets.object),
            (Lane::Twin, self.budgets.twin),
        ] {
            for session in [&mut self.edge, &mut self.cloud] {
                let (frames, bytes) = session.sender().used(lane);
                assert!(frames <= budget.frames && bytes <= budget.bytes);
            }
        }
    }

    fn edge_gets(&mut self, frame: Frame) {
        let acts = self.edge.on_frame(frame, self.now);
        self.edge_acts(acts);
    }

    fn edge_acts(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Open { .. } | Act::Rtt { .. } | Act::Delayed { .. } => {}
                Act::Apply { ticket, put } => {
                    self.applies += 1;
                    let key = (put.kind.clone(), put.topic.clone());
                    let version = version_of(&put);
                    self.bus_queue.push_back(BusOp::Put {
                        ticket,
                        key,
                        version,
                    });
                }
                Act::Remove {
                    ticket,
                    kind,
                    topic,
                    uid,
                } => {
                    let key = (kind, topic.to_string());
                    let wanted = self.truth.get(&key);
                    // A uid that is gone never comes back: deleting it can never be wrong.
                    assert!(
                        uid.is_empty() || wanted.is_none_or(|(now, _)| *now != uid),
                        "{key:?} with uid {uid} is wanted, and was deleted"
                    );
                    self.bus_queue.push_back(BusOp::Remove { ticket, key });
                }
                Act::Synced { kind, .. } => {
                    assert!(self.listed.contains(&kind), "{kind} was never listed");
                    self.synced.insert(kind);
                }
                Act::EventDone { id, refused } => {
                    assert!(refused.is_none() && self.kube_events.contains(&id));
                    self.spool.retain(|(spooled, _)| *spooled != id);
                }
                Act::Closed { .. } => self.connected = false,
                other => panic!("unexpected at the edge: {other:?}"),
            }
        }
        if !self.connected {
            self.cut();
        }
    }

    fn cloud_gets(&mut self, frame: Frame) {
        let acts = self.cloud.on_frame(frame, self.now);
        self.cloud_acts(acts);
    }

    fn cloud_acts(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Apply { ticket, put } => self.kube_pending.push((ticket, put)),
                Act::Open { .. } | Act::Synced { .. } | Act::Rtt { .. } | Act::Delayed { .. } => {}
                Act::Closed { .. } => self.connected = false,
                other => panic!("unexpected in the cloud: {other:?}"),
            }
        }
        if !self.connected {
            self.cut();
        }
    }

    fn bus_commit(&mut self) {
        let acts = match self.bus_queue.pop_front() {
            None => return,
            Some(BusOp::Put {
                ticket,
                key,
                version,
            }) => {
                self.bus.insert(key, version);
                self.edge.done(ticket)
            }
            Some(BusOp::Remove { ticket, key }) => {
                self.bus.remove(&key);
                self.edge.done(ticket)
            }
        };
        self.edge_acts(acts);
    }

    /// The bus connection breaks under a write: nobody knows whether it was committed.
    fn bus_fail(&mut self) {
        let acts = match self.bus_queue.pop_front() {
            None => return,
            Some(BusOp::Put {
                ticket,
                key,
                version,
            }) => {
                if version.1 % 2 == 0 {
                    self.bus.insert(key, version);
                }
                self.edge.failed(ticket, Code::UNAVAILABLE, "bus", false)
            }
            Some(BusOp::Remove { ticket, .. }) => {
                self.edge.failed(ticket, Code::UNAVAILABLE, "bus", false)
            }
        };
        self.edge_acts(acts);
    }

    fn kube_answer(&mut self, pick: u8, result: u8) {
        if self.kube_pending.is_empty() {
            return;
        }
        let at = usize::from(pick) % self.kube_pending.len();
        let (ticket, put) = self.kube_pending.remove(at);
        let acts = if result == 0 && !self.calm {
            self.cloud.failed(ticket, Code::BUSY, "slow down", false)
        } else {
            let version = version_of(&put);
            if put.kind.as_str() == Kind::EVENT {
                self.kube_events.push(version.1);
            } else if self.kube_twins.insert(put.topic.clone(), version.clone()) != Some(version) {
                self.kube_writes += 1;
            }
            self.cloud.done(ticket)
        };
        self.cloud_acts(acts);
    }

    /// No more faults: everything must settle within a bounded number of turns.
    fn settle(&mut self) {
        self.calm = true;
        for name in DOWN {
            self.list(&kind(name));
        }
        for turn in 0..20_000u32 {
            if !self.connected {
                self.connect();
            }
            self.pump();
            let mut idle = true;
            while let Some(frame) = self.down.pop(0) {
                idle = false;
                self.edge_gets(frame);
            }
            while let Some(frame) = self.up.pop(0) {
                idle = false;
                self.cloud_gets(frame);
            }
            while !self.bus_queue.is_empty() {
                idle = false;
                self.bus_commit();
            }
            while !self.kube_pending.is_empty() {
                idle = false;
                self.kube_answer(0, 1);
            }
            if idle && self.spool.is_empty() && self.edge.is_settled() && self.cloud.is_settled() {
                return;
            }
            if idle {
                // Only a retry may be waited for, not the pings of a quiet line.
                let wake = [self.edge.next_wake(), self.cloud.next_wake()];
                self.now = wake.into_iter().flatten().min().unwrap().max(self.now);
            }
            assert!(turn < 19_999, "never settles");
        }
    }

    fn check(&self) {
        assert_eq!(self.bus, self.truth, "the mirror at the edge");
        assert_eq!(self.kube_twins, self.twins, "the twins in the cloud");
        let mut seen = BTreeSet::new();
        let first: Vec<u64> = self
            .kube_events
            .iter()
            .copied()
            .filter(|n| seen.insert(*n))
            .collect();
        assert_eq!(
            first,
            (1..=self.events_sent).collect::<Vec<_>>(),
            "events, in order"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_converge_whatever_breaks(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn without_faults_nothing_is_applied_twice(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for name in DOWN {
            world.list(&kind(name));
        }
        let mut changes = 0;
        for step in &steps {
            use Step::*;
            let faulty = matches!(
                step,
                Cut | LinkCrash { .. }
                    | StoreLost
                    | BridgeCrash
                    | BusFails
                    | DownTwice(_)
                    | KubeSpoilt { .. }
                    | Wait(_)
            );
            if faulty {
                continue;
            }
            if matches!(step, CloudSet { .. } | CloudRecreate { .. }) {
                changes += 1;
            }
            world.step(step);
        }
        world.settle();
        world.check();
        prop_assert!(world.applies <= changes, "{} applies of {changes} changes", world.applies);
        let mut events = world.kube_events.clone();
        events.dedup();
        prop_assert_eq!(events.len(), world.kube_events.len());

        // A reconnect of equal ends sends nothing but greetings and the word that all is held.
        let applies = (world.applies, world.kube_writes);
        world.cut();
        world.connect();
        world.pump();
        let mut frames = Vec::new();
        while let Some(frame) = world.down.pop(0) {
            frames.push(frame.name());
            world.edge_gets(frame);
        }
        prop_assert!(frames.iter().all(|name| *name == "Same"), "{frames:?}");
        world.settle();
        prop_assert_eq!(applies, (world.applies, world.kube_writes));
    }
}
