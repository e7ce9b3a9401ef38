//! The client against a broker: our own where the executable `edgebus` is built beside these tests
//! (or is named by `EDGEBUS_TEST_BROKER`); else, or with `EDGEBUS_TEST_BROKER=mosquitto`, Debian's
//! mosquitto, for what the client does must be plain MQTT 5.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use edgebus_bus::payload::{Beat, Health, Up};
use edgebus_bus::unit::Grant;
use edgebus_bus::{Identity, Name, ROOT, Role, Topic};
use edgebus_client::{Address, Bus, Change, ConnectOptions, Event, Message, Mirror};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn our_exe() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("EDGEBUS_TEST_BROKER") {
        return (named != "mosquitto").then(|| named.into());
    }
    // target/{profile}/deps/behaviour-… → target/{profile}/edgebus
    let tests = std::env::current_exe().ok()?;
    let beside = tests.parent()?.parent()?.join("edgebus");
    beside.exists().then_some(beside)
}

/// The broker under the client.
struct Broker {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

/// Who takes part, with which role.
const WHO: [(&str, Role); 5] = [
    ("cli", Role::Operator),
    ("writer", Role::Operator),
    ("modbus", Role::Mapper),
    ("edged", Role::Edged),
    ("devicetwin", Role::DeviceTwin),
];

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut me = Self { dir, child: None };
        me.restart();
        me
    }

    /// Ours, for what other brokers do not promise; none where there is none to test.
    fn start_ours() -> Option<Self> {
        our_exe().map(|_| Self::start())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Some(match our_exe() {
            Some(exe) => self.ours(&exe),
            None => self.mosquitto(),
        });
    }

    fn ours(&self, exe: &Path) -> Child {
        let mut child = Command::new(exe)
            .args(["broker", "--tcp", "127.0.0.1:0", "--run-dir"])
            .arg(self.dir.path())
            .arg("--data-dir")
            .arg(self.dir.path())
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
        let ready = serde_json::to_string(&Grant::Ready).unwrap();
        writeln!(grants, "{ready}").unwrap();
        child
    }

    fn mosquitto(&self) -> Child {
        let config = format!(
            "listener 0 {}\nallow_anonymous true\nmax_queued_messages 0\nuser root\n",
            self.dir.path().join("bus.sock").display()
        );
        let file = self.dir.path().join("mosquitto.conf");
        fs::write(&file, config).unwrap();
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

    fn address(&self) -> Address {
        Address::Unix(self.dir.path().join("bus.sock"))
    }

    async fn bus(&self, name: &str) -> Bus {
        let options = ConnectOptions::visitor(self.address(), Name::new(name).unwrap());
        self.connect(options.with_token(name)).await
    }

    async fn unit(&self, name: &str) -> Bus {
        let token = name;
        let name = Name::new(name).unwrap();
        self.connect(ConnectOptions::unit(self.address(), name, token, "1"))
            .await
    }

    async fn connect(&self, options: ConnectOptions) -> Bus {
        let bus = Bus::connect(options, CancellationToken::new());
        bus.connected(PATIENCE).await.unwrap();
        bus
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn app(topic: &str, payload: &str) -> Message {
    Message {
        topic: format!("app/{topic}"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        retain: true,
        qos: 1,
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("took too long")
}

#[tokio::test]
async fn a_collection_lists_then_watches() {
    let broker = Broker::start();
    let bus = broker.bus("cli").await;
    bus.publish_all([app("a", "1"), app("b", "1")])
        .await
        .unwrap();
    let mut all = bus.collection(["app/#"]).await.unwrap();
    let mut next = async || soon(all.next()).await.unwrap().unwrap();
    assert_eq!(next().await, Event::Init);
    assert!(matches!(next().await, Event::InitApply { .. }));
    assert!(matches!(next().await, Event::InitApply { .. }));
    assert_eq!(next().await, Event::InitDone);
    bus.publish(app("a", "2")).await.unwrap();
    let topic = "app/a".to_owned();
    let payload = Bytes::from_static(b"2");
    assert_eq!(next().await, Event::Apply { topic, payload });
    bus.publish(app("b", "")).await.unwrap();
    let topic = "app/b".to_owned();
    assert_eq!(next().await, Event::Delete { topic });
}

#[tokio::test]
async fn a_restarted_broker_is_listed_again_and_told_our_own_topics() {
    let mut broker = Broker::start();
    let unit = broker.unit("modbus").await;
    let watcher = broker.bus("cli").await;
    let filter = format!("{ROOT}/sys/+/health");
    let mut mirror = watcher.collection([filter]).await.unwrap().mirror();
    let topic = format!("{ROOT}/sys/modbus/health");
    let mut listed = false;
    while !listed || !mirror.members().contains_key(&topic) {
        listed |= soon(mirror.next()).await.unwrap().unwrap() == Change::Synced;
    }
    unit.set_health(Up::Degraded, Some("half".into()))
        .await
        .unwrap();
    broker.kill();
    // Published while nobody listens: acknowledged once somebody does.
    let late = watcher.post(app("late", "x")).await.unwrap();
    broker.restart();
    soon(late.acknowledged()).await.unwrap();
    // The unit may be back before or after the list: what counts is both.
    let degraded = |mirror: &Mirror| {
        mirror.members().get(&topic).is_some_and(|payload| {
            let health: Health = serde_json::from_slice(payload).unwrap();
            health.state == Up::Degraded
        })
    };
    let mut listed = false;
    while !listed || !degraded(&mirror) {
        listed |= soon(mirror.next()).await.unwrap().unwrap() == Change::Synced;
    }
    unit.close().await;
    let found = watcher.snapshot([topic.clone()], PATIENCE).await.unwrap();
    let health: Health = serde_json::from_slice(&found[&topic]).unwrap();
    assert_eq!(health.state, Up::Down);
}

#[tokio::test]
async fn thousands_of_messages_are_acknowledged_one_by_one() {
    let broker = Broker::start();
    let bus = broker.bus("writer").await;
    let many = (0..5000).map(|n| app(&format!("x/{n}"), "payload"));
    soon(bus.publish_all(many)).await.unwrap();
    let found = bus.snapshot(["app/x/#"], PATIENCE).await.unwrap();
    assert_eq!(found.len(), 5000);
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_loses_nothing_and_holds_nobody_up() {
    let broker = Broker::start();
    let bus = broker.bus("cli").await;
    let mut slow = bus.subscribe(["app/s/#"]).await.unwrap();
    slow.granted().await.unwrap();
    for n in 0..3000 {
        let mut message = app(&format!("s/{n}"), &n.to_string());
        message.retain = false;
        drop(bus.post(message).await.unwrap());
    }
    // Over a thousand are queued and the rest is held back by now; publishing still works.
    soon(bus.publish(app("other", "1"))).await.unwrap();
    for n in 0..3000 {
        let message = soon(slow.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, n.to_string().as_bytes());
    }
    assert_eq!(slow.dropped(), 0);
}

#[tokio::test]
async fn what_the_inbox_did_not_acknowledge_comes_again() {
    let broker = Broker::start();
    let bus = broker.unit("devicetwin").await;
    let mapper = broker.unit("modbus").await;
    let topic = Topic::parse(&format!("{ROOT}/dev/modbus/default/pump/report")).unwrap();
    let mut inbox = bus.inbox();
    inbox.granted().await.unwrap();
    for seq in 0..3u64 {
        mapper
            .send(&topic, &Beat { seq, loop_ok_ms: 0 })
            .await
            .unwrap();
    }
    let seq = |m: &Message| m.read::<Beat>().unwrap().seq;
    let first = soon(inbox.next()).await.unwrap().unwrap();
    assert_eq!(seq(&first), 0);
    first.ack();
    let second = soon(inbox.next()).await.unwrap().unwrap();
    assert_eq!(seq(&second), 1);
    // Once the acknowledgement is out.
    soon(mapper.send(
        &topic,
        &Beat {
            seq: 3,
            loop_ok_ms: 0,
        },
    ))
    .await
    .unwrap();
    drop(second);
    drop(inbox);
    let mut again = bus.inbox();
    let mut seen = vec![];
    while seen.last() != Some(&3) {
        let delivery = soon(again.next()).await.unwrap().unwrap();
        seen.push(seq(&delivery));
        delivery.ack();
    }
    assert!(seen.ends_with(&[1, 2, 3]), "{seen:?}");
}

#[tokio::test]
async fn a_unit_answers_ping_and_dump_and_says_what_it_cannot() {
    let broker = Broker::start();
    let unit = broker.unit("edged").await;
    unit.on_dump(|| serde_json::json!({"pods": 3}));
    let cli = broker.bus("cli").await;
    let ask = async |op: &str| {
        cli.ask(unit.name(), op, Default::default(), PATIENCE)
            .await
            .unwrap()
    };
    assert_eq!(ask("ping").await.data["boot"], unit.boot());
    assert_eq!(ask("dump").await.data["component"]["pods"], 3);
    let refused = ask("dance").await;
    assert!(!refused.ok && refused.why.unwrap().contains("\"dance\""));
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let broker = Broker::start();
    let cli = broker.bus("cli").await;
    let wait = Duration::from_millis(200);
    let nobody = Name::new("nobody").unwrap();
    let error = cli.ask(&nobody, "ping", Default::default(), wait).await;
    assert!(error.unwrap_err().can_retry());
    let away = ConnectOptions::visitor(Address::Unix("/nonexistent/bus.sock".into()), nobody);
    let bus = Bus::connect(away, CancellationToken::new());
    let error = bus.connected(wait).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/bus.sock"), "{error}");
}

#[tokio::test]
async fn a_mirror_ends_equal_to_the_state_whatever_happens_meanwhile() {
    let broker = Broker::start();
    let writer = broker.bus("writer").await;
    let reader = broker.bus("cli").await;
    let work = tokio::spawn(async move {
        let mut last = BTreeMap::new();
        for round in 0..40u32 {
            for n in 0..25u32 {
                let payload = if (n + round) % 3 == 0 {
                    String::new()
                } else {
                    format!("{round}")
                };
                last.insert(format!("app/p/{n}"), payload.clone());
                drop(writer.post(app(&format!("p/{n}"), &payload)).await.unwrap());
            }
        }
        writer.publish(app("p/end", "1")).await.unwrap();
        last.retain(|_, p| !p.is_empty());
        last
    });
    let mut mirrors = vec![];
    for _ in 0..5 {
        let mut mirror = reader.collection(["app/p/#"]).await.unwrap().mirror();
        while !matches!(soon(mirror.next()).await.unwrap().unwrap(), Change::Synced) {}
        mirrors.push(mirror);
    }
    let want = work.await.unwrap();
    for mut mirror in mirrors {
        while !mirror.members().contains_key("app/p/end") {
            soon(mirror.next()).await.unwrap().unwrap();
        }
        let mut got: BTreeMap<String, String> = mirror
            .members()
            .iter()
            .map(|(t, p)| (t.clone(), String::from_utf8(p.to_vec()).unwrap()))
            .collect();
        got.remove("app/p/end");
        assert_eq!(got, want);
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let Some(mut broker) = Broker::start_ours() else {
        return;
    };
    let writer = broker.bus("writer").await;
    let reader = broker.bus("cli").await;
    let mut mirror = reader.collection(["app/k/#"]).await.unwrap().mirror();
    let work = tokio::spawn(async move {
        let mut last = BTreeMap::new();
        for round in 0..400u32 {
            for n in 0..5u32 {
                let payload = format!("{round}");
                last.insert(format!("app/k/{n}"), payload.clone());
                drop(writer.post(app(&format!("k/{n}"), &payload)).await.unwrap());
            }
            writer
                .publish(app("k/round", &round.to_string()))
                .await
                .unwrap();
        }
        writer.publish(app("k/end", "1")).await.unwrap();
        last
    });
    for mark in [40, 120, 200, 280, 360] {
        let passed = |m: &BTreeMap<String, Bytes>| {
            let round = m
                .get("app/k/round")
                .map(|p| String::from_utf8(p.to_vec()).unwrap());
            round.is_some_and(|r| r.parse::<u32>().unwrap() >= mark)
        };
        while !passed(mirror.members()) {
            soon(mirror.next()).await.unwrap().unwrap();
        }
        broker.restart();
    }
    let mut want = work.await.unwrap();
    while !mirror.members().contains_key("app/k/end") {
        soon(mirror.next()).await.unwrap().unwrap();
    }
    want.insert("app/k/round".into(), "399".into());
    want.insert("app/k/end".into(), "1".into());
    let found = soon(reader.snapshot(["app/k/#"], PATIENCE)).await.unwrap();
    for state in [&found, mirror.members()] {
        let got: BTreeMap<_, _> = state
            .iter()
            .map(|(t, p)| (t.clone(), String::from_utf8(p.to_vec()).unwrap()))
            .collect();
        assert_eq!(got, want);
    }
}

#[tokio::test]
async fn a_refusal_says_what_why_and_whether_to_try_again() {
    let Some(broker) = Broker::start_ours() else {
        return;
    };
    let mapper = broker.unit("modbus").await;
    let foreign = Topic::parse(&format!("{ROOT}/dev/opcua/default/pump/report")).unwrap();
    let beat = Beat {
        seq: 1,
        loop_ok_ms: 0,
    };
    let error = soon(mapper.send(&foreign, &beat)).await.unwrap_err();
    assert!(!error.can_retry());
    let said = error.to_string();
    assert!(
        said.contains("opcua") && said.contains("may not publish"),
        "{said}"
    );

    let stream = mapper.subscribe([format!("{ROOT}/obj/#")]).await.unwrap();
    let error = soon(stream.granted()).await.unwrap_err().to_string();
    assert!(error.contains("/obj/#"), "{error}");
    let mut collection = mapper
        .collection([format!("{ROOT}/sealed/#")])
        .await
        .unwrap();
    loop {
        match soon(collection.next()).await.unwrap() {
            Ok(Event::Init) => {}
            other => {
                assert!(other.unwrap_err().to_string().contains("/sealed/#"));
                break;
            }
        }
    }

    let stranger = ConnectOptions::visitor(broker.address(), Name::new("cli").unwrap());
    let bus = Bus::connect(stranger.with_token("wrong"), CancellationToken::new());
    let error = bus.connected(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("bad user name or password"), "{error}");
}
