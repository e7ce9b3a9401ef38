//! Link between a bus and a cloud with real TLS. The bus is our own broker where the executable `edgebus` is
//! built beside these tests (or is named by `EDGEBUS_TEST_BROKER`); else, or with
//! `EDGEBUS_TEST_BROKER=mosquitto`, Debian's mosquitto, without a store.

#![allow(clippy::unwrap_used)]

mod cloud;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cloud::Cloud;
use edgebus_bus::payload::{self, LinkState, LinkUp, SyncMark};
use edgebus_bus::unit::Grant;
use edgebus_bus::{Identity, Name, NodeName, Role, Topic};
use edgebus_client::{Address, Bus, Change, ConnectOptions, Message, Mirror};
use edgebus_link::{Config, JoinSpec, join, run};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(20);

fn our_exe() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("EDGEBUS_TEST_BROKER") {
        return (named != "mosquitto").then(|| named.into());
    }
    // target/{profile}/deps/link-… → target/{profile}/edgebus
    let tests = std::env::current_exe().ok()?;
    let beside = tests.parent()?.parent()?.join("edgebus");
    beside.exists().then_some(beside)
}

/// Who takes part, with which role; tokens are the names.
const WHO: [(&str, Role); 4] = [
    ("cli", Role::Operator),
    ("link", Role::Link),
    ("edged", Role::Edged),
    ("devicetwin", Role::DeviceTwin),
];

struct Node {
    dir: tempfile::TempDir,
    broker: Option<Child>,
    link: Option<(JoinHandle<anyhow::Result<()>>, CancellationToken, DropGuard)>,
}

impl Node {
    /// A broker and an empty folder.
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node {
            dir,
            broker: None,
            link: None,
        };
        node.restart_broker();
        node
    }

    /// Joined to that cloud, with link running, and a look at all of the bus.
    async fn joined(cloud: &Cloud) -> (Node, View) {
        let mut node = Node::new();
        node.join(cloud).await;
        let view = node.view().await;
        node.start().await;
        (node, view)
    }

    async fn join(&self, cloud: &Cloud) {
        let mut spec = JoinSpec::new(cloud.server(), cloud.token(), self.keys());
        spec.node = Some(NodeName::new("gw-1").unwrap());
        spec.accept_cluster = true;
        join(spec).await.unwrap();
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn restart_broker(&mut self) {
        self.kill_broker();
        self.broker = Some(match our_exe() {
            Some(exe) => self.ours(&exe),
            None => self.mosquitto(),
        });
    }

    fn ours(&self, exe: &Path) -> Child {
        let mut child = Command::new(exe)
            .args(["broker", "--tcp", "127.0.0.1:0", "--run-dir"])
            .arg(self.dir.path())
            .arg("--data-dir")
            .arg(self.dir.path().join("bus"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the executable edgebus can be started");
        let grants = child.stdin.as_mut().unwrap();
        for (name, role) in WHO {
            let grant = Grant::Allow {
                identity: Identity::new(role, name),
                token: name.into(),
            };
            writeln!(grants, "{}", serde_json::to_string(&grant).unwrap()).unwrap();
        }
        writeln!(grants, "{}", serde_json::to_string(&Grant::Ready).unwrap()).unwrap();
        child
    }

    fn mosquitto(&self) -> Child {
        let socket = self.dir.path().join("bus.sock");
        let config = format!(
            "listener 0 {}\nallow_anonymous true\nmax_queued_messages 0\nuser root\n",
            socket.display()
        );
        let file = self.dir.path().join("mosquitto.conf");
        std::fs::write(&file, config).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("mosquitto")
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "these tests need `cargo build -p edgebus` first, or Debian's package mosquitto",
            )
    }

    /// As after a corrupt store: what was retained is gone.
    fn lose_store(&mut self) {
        self.kill_broker();
        std::fs::remove_dir_all(self.dir.path().join("bus")).ok();
        self.restart_broker();
    }

    fn kill_broker(&mut self) {
        if let Some(mut child) = self.broker.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn address(&self) -> Address {
        Address::Unix(self.dir.path().join("bus.sock"))
    }

    async fn bus(&self, name: &str) -> Bus {
        let options = ConnectOptions::visitor(self.address(), Name::new(name).unwrap());
        let bus = Bus::connect(options.with_token(name), CancellationToken::new());
        bus.connected(PATIENCE).await.unwrap();
        bus
    }

    async fn view(&self) -> View {
        let (edged, devicetwin) = (self.bus("edged").await, self.bus("devicetwin").await);
        let cli = self.bus("cli").await;
        let mirror = cli.collection(["edge/#"]).await.unwrap().mirror();
        let sealed = [format!("{}/sealed/#", edgebus_bus::ROOT)];
        let sealed = devicetwin.collection(sealed).await.unwrap().mirror();
        View {
            _cli: cli,
            edged,
            devicetwin,
            mirror,
            sealed,
        }
    }

    /// Starts link in a thread of its own. With the sender gone it ends as by `kill -9`: nothing of it runs any
    /// more, its sockets close.
    fn start_apart(&self) -> oneshot::Sender<()> {
        let options =
            ConnectOptions::unit(self.address(), Name::new("link").unwrap(), "link", "test");
        let config = Config::new(self.keys(), self.dir.path().join("data"));
        let (alive, killed) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let bus = Bus::connect(options, CancellationToken::new());
                tokio::select! {
                    ended = run(config, bus, CancellationToken::new()) => panic!("{ended:?}"),
                    _ = killed => {}
                }
            });
        });
        alive
    }

    async fn start(&mut self) {
        let options =
            ConnectOptions::unit(self.address(), Name::new("link").unwrap(), "link", "test");
        let alive = CancellationToken::new();
        let bus = Bus::connect(options, alive.clone());
        let mut config = Config::new(self.keys(), self.dir.path().join("data"));
        config.retry_max = Duration::from_millis(300);
        let stop = CancellationToken::new();
        let link = {
            let stop = stop.clone();
            async move {
                let result = run(config, bus.clone(), stop).await;
                bus.close().await;
                result
            }
        };
        self.link = Some((tokio::spawn(link), stop, alive.drop_guard()));
    }

    /// In good order.
    async fn stop(&mut self) {
        let (link, stop, _alive) = self.link.take().unwrap();
        stop.cancel();
        timeout(PATIENCE, link).await.unwrap().unwrap().unwrap();
    }

    /// In the middle of whatever it does.
    async fn kill(&mut self) {
        let (link, ..) = self.link.take().unwrap();
        link.abort();
        assert!(link.await.unwrap_err().is_cancelled());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_broker();
    }
}

/// All that is retained on the bus, and those who write there.
struct View {
    _cli: Bus,
    edged: Bus,
    devicetwin: Bus,
    mirror: Mirror,
    sealed: Mirror,
}

impl View {
    async fn until(&mut self, what: &str, test: impl Fn(&BTreeMap<String, Bytes>) -> bool) {
        let wait = async {
            while !test(self.mirror.members()) {
                let change = self.mirror.next().await.unwrap().unwrap();
                drop::<Change>(change);
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("never: {what}; the bus holds {:#?}", self.mirror.members());
        }
    }

    fn json(&self, topic: &Topic) -> Option<Value> {
        let payload = self.mirror.members().get(&topic.to_string())?;
        Some(serde_json::from_slice(payload).unwrap())
    }

    async fn link(&mut self, what: &str, test: impl Fn(&LinkState) -> bool) -> LinkState {
        let topic = Topic::Link {}.to_string();
        let read = |all: &BTreeMap<String, Bytes>| {
            all.get(&topic)
                .and_then(|p| payload::read::<LinkState>(p).ok())
        };
        self.until(what, |all| read(all).is_some_and(|s| test(&s)))
            .await;
        read(self.mirror.members()).unwrap()
    }

    async fn up(&mut self) {
        self.link("up", |s| s.state == LinkUp::Up).await;
    }

    async fn has(&mut self, topic: &Topic, pointer: &str, value: Value) {
        let text = topic.to_string();
        let found = |all: &BTreeMap<String, Bytes>| {
            let json: Value = serde_json::from_slice(all.get(&text)?).ok()?;
            json.pointer(pointer).cloned()
        };
        let what = format!("{text}{pointer} is {value}");
        self.until(&what, |all| found(all) == Some(value.clone()))
            .await;
    }

    async fn gone(&mut self, topic: &Topic) {
        let text = topic.to_string();
        self.until(&format!("{text} is gone"), |all| !all.contains_key(&text))
            .await;
    }
}

async fn eventually(what: &str, test: impl Fn() -> bool) {
    let wait = async {
        while !test() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn object(kind: &str, text: &str) -> Topic {
    Topic::Obj {
        kind: name(kind),
        ns: "plant".parse().unwrap(),
        name: name(text),
    }
}

fn twin(text: &str) -> Topic {
    Topic::Twin {
        ns: name("plant"),
        name: name(text),
    }
}

fn mark(kind: &str) -> Topic {
    Topic::Sync { kind: name(kind) }
}

fn want(cloud: &Cloud, kind: &str, text: &str, uid: &str, value: u32) {
    let body = json!({"spec": {"value": value}}).to_string();
    cloud.want(kind, &object(kind, text).to_string(), uid, &body);
}

#[tokio::test]
async fn objects_come_down_change_and_go() {
    let cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    want(&cloud, "configmap", "settings", "u-2", 1);
    let sealed = Topic::Sealed {
        kind: name("secret"),
        ns: "plant".parse().unwrap(),
        name: name("s"),
    };
    cloud.want(
        "secret",
        &sealed.to_string(),
        "u-3",
        r#"{"key_id":"k","box":"AAAA"}"#,
    );
    let spec = Topic::NodeSpec {};
    cloud.want(
        "node",
        &spec.to_string(),
        "u-4",
        r#"{"node":"gw-1","labels":{"a":"b"}}"#,
    );
    let (_node, mut view) = Node::joined(&cloud).await;
    let pump = object("device", "pump");
    view.has(&pump, "/obj/spec/value", json!(1)).await;
    view.has(&pump, "/uid", json!("u-1")).await;
    let text = sealed.to_string();
    let wait = async {
        while !view.sealed.members().contains_key(&text) {
            view.sealed.next().await.unwrap().unwrap();
        }
    };
    timeout(PATIENCE, wait)
        .await
        .expect("the sealed object is there");
    let stored: payload::Sealed = payload::read(&view.sealed.members()[&text]).unwrap();
    assert_eq!(
        (stored.sealed.as_str(), stored.uid.as_str()),
        ("AAAA", "u-3")
    );
    view.has(&spec, "/labels/a", json!("b")).await;
    for kind in ["device", "configmap", "secret", "node"] {
        view.has(&mark(kind), "/complete", json!(true)).await;
    }
    let first = view.json(&mark("device")).unwrap();
    let mark: SyncMark = serde_json::from_value(first).unwrap();
    assert_eq!(mark.cluster_id, "c-1");
    assert!(!mark.store_id.is_empty());

    let rev = view.json(&pump).unwrap()["rev"].as_u64().unwrap();
    want(&cloud, "device", "pump", "u-1", 2);
    view.has(&pump, "/obj/spec/value", json!(2)).await;
    assert!(view.json(&pump).unwrap()["rev"].as_u64().unwrap() > rev);
    want(&cloud, "device", "pump", "u-9", 2);
    view.has(&pump, "/uid", json!("u-9")).await;
    cloud.unwant("device", &pump.to_string());
    view.gone(&pump).await;
    let state = view
        .link("synced", |s| s.synced.len() == 4 && s.rtt_ms.is_some())
        .await;
    assert!(state.cert_until.is_some() && state.why.is_none());
}

#[tokio::test]
async fn a_restarted_link_knows_what_is_there_and_moves_nothing() {
    let cloud = Cloud::start("c-1").await;
    for n in 0..20 {
        want(&cloud, "device", &format!("d-{n}"), &format!("u-{n}"), n);
    }
    let (mut node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    let rev_of = |view: &View, n: u32| {
        view.json(&object("device", &format!("d-{n}"))).unwrap()["rev"]
            .as_u64()
            .unwrap()
    };
    let rev = |view: &View| {
        let revs = (0..20).map(|n| rev_of(view, n));
        revs.max().unwrap()
    };
    let before = rev(&view);
    node.stop().await;
    view.link("down", |s| s.state == LinkUp::Down).await;
    let puts = cloud.state().puts;
    node.start().await;
    view.up().await;
    eventually("connected again", || cloud.state().opened == 2).await;
    assert_eq!(cloud.state().puts, puts);
    assert_eq!(
        cloud.state().hellos[1].have[&edgebus_linkproto::Kind::new("device").unwrap()].count(),
        20
    );

    // What changed while it was away is the difference, deletions included.
    node.kill().await;
    cloud.deserted().await;
    want(&cloud, "device", "d-3", "u-3", 99);
    cloud.unwant("device", &object("device", "d-4").to_string());
    node.start().await;
    view.gone(&object("device", "d-4")).await;
    view.has(&object("device", "d-3"), "/obj/spec/value", json!(99))
        .await;
    assert!(rev_of(&view, 3) > before, "the counter goes on");
    assert_eq!(cloud.state().puts, puts + 2, "a manifest and one object");
}

#[tokio::test]
async fn a_killed_link_is_said_to_be_down_until_it_is_back() {
    let cloud = Cloud::start("c-1").await;
    let node = Node::new();
    node.join(&cloud).await;
    let mut view = node.view().await;
    for _ in 0..2 {
        let process = node.start_apart();
        view.up().await;
        drop(process);
        let state = view.link("down", |s| s.state == LinkUp::Down).await;
        assert!(state.why.unwrap().contains("without a word"));
    }
}

#[tokio::test]
async fn a_lost_store_is_filled_again_under_a_new_name() {
    let cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    let (mut node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    let old = view.json(&mark("device")).unwrap()["store_id"].clone();
    node.lose_store();
    view.until("a new store", |all| {
        let mark = all.get(&mark("device").to_string());
        let mark = mark.and_then(|m| payload::read::<SyncMark>(m).ok());
        mark.is_some_and(|m| m.complete && old != m.store_id.as_str())
    })
    .await;
    view.has(&object("device", "pump"), "/obj/spec/value", json!(1))
        .await;
}

#[tokio::test]
async fn another_cluster_changes_nothing_until_it_is_accepted() {
    let mut cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    let (node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    cloud.cut().await;
    cloud.change(|state| {
        state.cluster_id = "c-2".into();
        state.wanted.clear();
    });
    cloud.serve().await;
    let state = view.link("refused", |s| s.state == LinkUp::Refused).await;
    let why = state.why.unwrap();
    assert!(
        why.contains("c-1") && why.contains("c-2") && why.contains("--accept-cluster"),
        "{why}"
    );
    assert!(view.json(&object("device", "pump")).is_some());
    assert!(cloud.state().states.is_empty());

    node.join(&cloud).await;
    view.gone(&object("device", "pump")).await;
    view.has(&mark("device"), "/cluster_id", json!("c-2")).await;
    view.up().await;
}

#[tokio::test]
async fn twins_go_up_with_the_uid_of_their_device_and_newest_only() {
    let mut cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    let (_node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    let topic = twin("pump").to_string();
    let there = |cloud: &Cloud, uid: &str, n: u32| {
        let state = cloud.state();
        state.states.get(&topic).is_some_and(|(u, body)| {
            u == uid && serde_json::from_slice::<Value>(body).unwrap()["n"] == n
        })
    };
    view.devicetwin
        .put(&twin("pump"), &json!({"n": 1}))
        .await
        .unwrap();
    eventually("the twin is up", || there(&cloud, "u-1", 1)).await;
    cloud.cut().await;
    for n in 2..50 {
        view.devicetwin
            .put(&twin("pump"), &json!({"n": n}))
            .await
            .unwrap();
    }
    cloud.serve().await;
    eventually("the newest twin is up", || there(&cloud, "u-1", 49)).await;
    want(&cloud, "device", "pump", "u-2", 1);
    eventually("the twin of the recreated device", || {
        there(&cloud, "u-2", 49)
    })
    .await;

    // A twin that vanishes says nothing while its device stands; with the device it goes.
    view.devicetwin.clear(&twin("pump")).await.unwrap();
    view.gone(&twin("pump")).await;
    assert!(cloud.state().removed.is_empty());
    cloud.unwant("device", &object("device", "pump").to_string());
    eventually("the twin is removed", || {
        cloud.state().removed == [topic.clone()]
    })
    .await;
}

#[tokio::test]
async fn status_and_beats_go_up() {
    let cloud = Cloud::start("c-1").await;
    let (_node, mut view) = Node::joined(&cloud).await;
    view.up().await;
    let status = |node: &str| json!({"node": node, "status": {"capacity": {"cpu": "2"}}});
    view.edged
        .put(&Topic::NodeStatus {}, &status("gw-1"))
        .await
        .unwrap();
    let topic = Topic::NodeStatus {}.to_string();
    eventually("the status is up", || {
        cloud.state().states.contains_key(&topic)
    })
    .await;
    view.edged
        .put(&Topic::NodeStatus {}, &status("gw-2"))
        .await
        .unwrap();
    view.edged
        .send(&Topic::NodeBeat {}, &json!({"seq": 7, "loop_ok_ms": 1}))
        .await
        .unwrap();
    eventually("the beat is up", || !cloud.state().beats.is_empty()).await;
    let (_, body) = cloud.state().states[&topic].clone();
    assert!(
        body.windows(4).any(|w| w == b"gw-1"),
        "another node's status stays here"
    );
}

#[tokio::test]
async fn events_wait_for_the_cloud_on_disk_and_arrive_in_order() {
    let mut cloud = Cloud::start("c-1").await;
    let (mut node, mut view) = Node::joined(&cloud).await;
    view.up().await;
    let topic = Topic::Event { c: name("edged") };
    let send = async |bus: &Bus, n: u32| {
        let message = Message::new(topic.to_string(), n.to_string()).unwrap();
        bus.publish(message).await.unwrap();
    };
    let got = |cloud: &Cloud| {
        let state = cloud.state();
        state
            .events
            .iter()
            .map(|b| String::from_utf8_lossy(b).parse().unwrap())
            .collect::<Vec<u32>>()
    };
    for n in 0..5 {
        send(&view.edged, n).await;
    }
    eventually("five events", || got(&cloud) == [0, 1, 2, 3, 4]).await;
    cloud.cut().await;
    for n in 5..60 {
        send(&view.edged, n).await;
    }
    view.link("spooled", |s| {
        s.spool.rows == 55 && s.spool.oldest.is_some()
    })
    .await;
    node.kill().await;
    cloud.change(|state| state.busy = true);
    cloud.serve().await;
    node.start().await;
    view.up().await;
    cloud.change(|state| state.busy = false);
    eventually("all events", || got(&cloud).len() >= 60).await;
    assert_eq!(got(&cloud), (0..60).collect::<Vec<_>>());
    view.link("empty", |s| s.spool.rows == 0 && s.spool.dropped == 0)
        .await;
}

#[tokio::test]
async fn what_the_cloud_may_not_write_is_refused_and_the_rest_goes_on() {
    let cloud = Cloud::start("c-1").await;
    let link = Topic::Link {}.to_string();
    cloud.want("device", &link, "u-1", r#"{"state":"up"}"#);
    cloud.want(
        "device",
        &object("device", "broken").to_string(),
        "u-2",
        "no json",
    );
    cloud.want("device", "", "u-3", "{}");
    want(&cloud, "device", "pump", "u-4", 1);
    let (_node, mut view) = Node::joined(&cloud).await;
    view.has(&object("device", "pump"), "/uid", json!("u-4"))
        .await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    assert!(view.json(&object("device", "broken")).is_none());
    assert!(view.json(&Topic::Link {}).unwrap()["since"].is_string());
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_proven_before_it_stays() {
    let cloud = Cloud::start("c-1").await;
    cloud.change(|state| state.cert_life = Some(Duration::from_secs(4)));
    let (node, mut view) = Node::joined(&cloud).await;
    view.up().await;
    let read = |name: &str| std::fs::read(node.keys().join(name)).unwrap();
    let (key, cert) = (read("node.key"), read("node.crt"));
    cloud.change(|state| state.cert_life = Some(Duration::from_secs(3600)));
    let exists = |name: &str| Path::new(&node.keys().join(name)).exists();
    eventually("the new pair is in place", || {
        cloud.state().renewals == 1 && !exists("node.crt.new") && read("node.crt") != cert
    })
    .await;
    assert_ne!(read("node.key"), key);
    assert!(!exists("node.key.new"));
    eventually("connected with it", || cloud.state().serials.len() == 2).await;
    view.up().await;
}

#[tokio::test]
async fn a_revoked_node_says_why_and_keeps_everything() {
    let mut cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    let (_node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    cloud.cut().await;
    cloud.change(|state| state.forbid = Some("node gw-1 was revoked".into()));
    cloud.serve().await;
    let state = view.link("refused", |s| s.state == LinkUp::Refused).await;
    assert!(state.why.unwrap().ends_with("(403): node gw-1 was revoked"));
    assert!(view.json(&object("device", "pump")).is_some());
}

#[tokio::test]
async fn a_node_that_is_not_joined_waits_and_starts_when_it_is() {
    let cloud = Cloud::start("c-1").await;
    let mut node = Node::new();
    let mut view = node.view().await;
    node.start().await;
    let state = view.link("joining", |s| s.state == LinkUp::Joining).await;
    assert!(state.why.unwrap().contains("edgebus join"));
    node.join(&cloud).await;
    view.up().await;
    edgebus_link::reset(&node.keys()).unwrap();
    view.link("joining again", |s| s.state == LinkUp::Joining)
        .await;
}

#[tokio::test]
async fn a_restarted_broker_keeps_the_mirror_and_costs_one_reconnect() {
    if our_exe().is_none() {
        return; // mosquitto here keeps nothing
    }
    let cloud = Cloud::start("c-1").await;
    for n in 0..5 {
        want(&cloud, "device", &format!("d-{n}"), "u", n);
    }
    let (mut node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    let puts = cloud.state().puts;
    let opened = cloud.state().opened;
    node.restart_broker();
    eventually("connected again", || cloud.state().opened > opened).await;
    view.up().await;
    want(&cloud, "device", "d-1", "u", 77);
    view.has(&object("device", "d-1"), "/obj/spec/value", json!(77))
        .await;
    assert_eq!(cloud.state().puts, puts + 1);
}

#[tokio::test]
async fn a_rebuilt_cloud_with_another_ca_is_not_spoken_to_and_said_so() {
    let cloud = Cloud::start("c-1").await;
    want(&cloud, "device", "pump", "u-1", 1);
    let (node, mut view) = Node::joined(&cloud).await;
    view.has(&mark("device"), "/complete", json!(true)).await;
    cloud.cut().await;
    let rebuilt = Cloud::start_at("c-2", cloud.port).await;
    rebuilt.change(|state| {
        state.complete.insert("device".into());
    });
    let state = view.link("refused", |s| s.state == LinkUp::Refused).await;
    let why = state.why.unwrap();
    assert!(
        why.contains("another CA") && why.contains("--accept-cluster"),
        "{why}"
    );
    assert!(view.json(&object("device", "pump")).is_some());
    node.join(&rebuilt).await;
    view.gone(&object("device", "pump")).await;
}
