//! How fast things are there again, or for the first time.

use crate::stand::{NODE, Stand};
use crate::{Row, percentiles, row};
use edgebus_bus::payload::{self, LinkState, LinkUp};
use edgebus_bus::{Name, Topic};
use edgebus_client::{Address, Bus, Change, ConnectOptions};
use edgebus_tests::api::{device, model, properties};
use edgebus_tests::eventually;
use edgebus_tests::plant::Plant;
use serde_json::json;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ROUNDS: u16 = 22;
const JOINS: u16 = 6;
const WAIT: Duration = Duration::from_secs(20);

/// What the node says of its link, with the time at which it was heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(Instant, LinkUp)>>>);

impl Heard {
    fn listen(socket: PathBuf, stop: CancellationToken) -> Self {
        let heard = Self::default();
        let ours = heard.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let options = ConnectOptions::visitor(
                    Address::Unix(socket),
                    Name::new("operator").expect("a name"),
                );
                let bus = Bus::connect(options, stop.clone());
                let mut link = bus
                    .collection([Topic::Link {}.to_string()])
                    .await
                    .expect("a collection")
                    .mirror();
                while let Some(Some(Ok(change))) = stop.run_until_cancelled(link.next()).await {
                    if let Change::Set { payload, .. } = change
                        && let Ok(state) = payload::read::<LinkState>(&payload)
                    {
                        ours.0
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((Instant::now(), state.state));
                    }
                }
            });
        });
        heard
    }

    fn first(&self, state: LinkUp, since: Instant) -> Instant {
        let end = Instant::now() + WAIT;
        loop {
            let all = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some((at, _)) = all.iter().find(|(at, s)| *at >= since && *s == state) {
                return *at;
            }
            assert!(
                Instant::now() < end,
                "the link does not say {state:?}; it said {:?}",
                all.last()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// `kill -9` of cloud-bridge, a desired value changed meanwhile, and its start.
pub fn measure() -> Vec<Row> {
    let mut stand = Stand::start(None);
    let plant = Plant::start();
    stand
        .kube
        .create("devicemodels", model("rec"))
        .expect("the API takes a model");
    stand
        .kube
        .create(
            "devices",
            device("rec", "rec", NODE, plant.port, 1, properties(1000, 1)),
        )
        .expect("the API takes a device");
    eventually("the device is served", || {
        if plant.get(1, 0) == 1 {
            Ok(())
        } else {
            Err("no write yet".into())
        }
    });
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let heard = Heard::listen(stand.node.run_dir().join("admin/admin.sock"), stop);
    let (mut to_up, mut to_register, mut from_listen) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let cut = Instant::now();
        stand.cloud.cut();
        let patch = json!({ "spec": { "properties": properties(1000, 100 + round) } });
        stand
            .kube
            .patch("devices", "rec", &patch)
            .expect("the API takes a desired value");
        heard.first(LinkUp::Down, cut);
        std::thread::sleep(Duration::from_millis(1000 + u64::from(round) * 137 % 1000));
        stand.bridge();
        let end = Instant::now() + WAIT;
        while TcpStream::connect(("127.0.0.1", stand.cloud.bridge_port)).is_err() {
            assert!(Instant::now() < end, "cloud-bridge does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
        let listens = Instant::now();
        let up = heard.first(LinkUp::Up, cut);
        let written = plant
            .written(1, 0, 100 + round, cut, WAIT)
            .expect("the register is written");
        to_up.push(up.saturating_duration_since(listens));
        to_register.push(written.saturating_duration_since(up));
        from_listen.push(written.saturating_duration_since(listens));
        std::thread::sleep(Duration::from_millis(300));
    }
    vec![
        row(
            "cloud-bridge listens again (1–2 s after `kill -9`) → link up, p50 / p99",
            percentiles(to_up),
        )
        .against("p99 ≤ 500 ms", "5.6–19 s"),
        row(
            "link up → a value patched during the outage is in its register",
            percentiles(to_register),
        ),
        row(
            "cloud-bridge listens again → that register",
            percentiles(from_listen),
        ),
    ]
}

/// From a token to a node that is Ready.
pub fn join() -> Vec<Row> {
    let mut stand = Stand::cloud();
    eventually("cloud-bridge listens", || {
        TcpStream::connect(("127.0.0.1", stand.cloud.bridge_port))
            .map(drop)
            .map_err(|e| e.to_string())
    });
    let (mut started, mut whole) = (Vec::new(), Vec::new());
    for round in 0..JOINS {
        let name = format!("new-{round}");
        stand.new_node(&name);
        let token = stand.cloud.token(Some(&name));
        let begun = Instant::now();
        let (code, said) = stand.node.join_code(&stand.cloud, &token);
        assert_eq!(code, 0, "join: {said}");
        let joined = Instant::now();
        stand.begin();
        let end = Instant::now() + WAIT;
        while let Err(why) = stand.kube.node_ready(&name) {
            assert!(Instant::now() < end, "{why}");
            std::thread::sleep(Duration::from_millis(2));
        }
        started.push(joined.elapsed());
        whole.push(begun.elapsed());
    }
    vec![
        row("`edgebus node` started → node Ready", percentiles(started))
            .against("≤ 500 ms", "1.1–1.5 s"),
        row("`edgebus join` begun → node Ready", percentiles(whole)),
    ]
}
