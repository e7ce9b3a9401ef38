//! The load: desired values through the API, and acknowledged publishes by an MQTT client, each with
//! an account of what was said and what was acknowledged.

use crate::api::{Kube, properties};
use crate::cloud::Cloud;
use crate::mqtt::Publisher;
use crate::node::Node;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two desired values.
const PACE: Duration = Duration::from_millis(150);
/// Retained topics of the client.
pub const TOPICS: usize = 32;
/// Publishes under way at once: fewer than topics, so that none has two.
const WINDOW: usize = 8;

/// Asks for one desired value after the other: 2, 3, 4, …
pub struct Desire {
    shared: Arc<DesireState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct DesireState {
    /// The last value that may have reached the API.
    asked: AtomicU16,
    /// The last value that the API acknowledged.
    acknowledged: AtomicU16,
    hold: AtomicBool,
    held: AtomicBool,
    stop: AtomicBool,
}

impl Desire {
    pub fn start(cloud: &Cloud, device: &'static str, cycle_ms: u32) -> Self {
        let shared = Arc::new(DesireState::default());
        shared.asked.store(1, SeqCst);
        shared.acknowledged.store(1, SeqCst);
        let kube = Kube::new(cloud);
        let state = shared.clone();
        let thread = std::thread::spawn(move || {
            while !state.stop.load(SeqCst) {
                std::thread::sleep(PACE);
                if state.hold.load(SeqCst) {
                    state.held.store(true, SeqCst);
                    continue;
                }
                let value = state.acknowledged.load(SeqCst).saturating_add(1);
                state.asked.store(value, SeqCst);
                let patch = json!({ "spec": { "properties": properties(cycle_ms, value) } });
                // The same value again until the API takes it: it may have taken it already.
                while kube.patch("devices", device, &patch).is_err() && !state.stop.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if !state.stop.load(SeqCst) {
                    state.acknowledged.store(value, SeqCst);
                }
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Stops asking, and says the last value: acknowledged. None = the API took nothing for `wait`.
    pub fn hold(&self, wait: Duration) -> Option<u16> {
        self.shared.held.store(false, SeqCst);
        self.shared.hold.store(true, SeqCst);
        let end = Instant::now() + wait;
        while !self.shared.held.load(SeqCst) {
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(self.shared.acknowledged.load(SeqCst))
    }

    /// Asks on.
    pub fn go_on(&self) {
        self.shared.hold.store(false, SeqCst);
    }

    /// The last value that may have reached the API.
    pub fn asked(&self) -> u16 {
        self.shared.asked.load(SeqCst)
    }

    /// How many were acknowledged: the last of them, since they are counted.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(SeqCst).into()
    }
}

impl Drop for Desire {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The account of one topic: numbers that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// The last number that may have reached the broker.
    pub sent: u64,
    /// The last number that the broker acknowledged.
    pub acknowledged: u64,
}

/// A client that publishes numbers, QoS 1: retained on `app/soak/N`, and as the level of a lamp on
/// KubeEdge's topic.
pub struct Ledger {
    shared: Arc<LedgerState>,
    thread: Option<JoinHandle<()>>,
}

struct LedgerState {
    /// One for each topic; the last is the lamp's.
    accounts: Mutex<Vec<Account>>,
    acknowledged: AtomicU64,
    hold: AtomicBool,
    stop: AtomicBool,
}

impl LedgerState {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Account>) -> T) -> T {
        work(&mut self.accounts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ledger {
    pub fn start(node: &Node, lamp: &'static str) -> Self {
        let shared = Arc::new(LedgerState {
            accounts: Mutex::new(vec![Account::default(); TOPICS + 1]),
            acknowledged: AtomicU64::new(0),
            hold: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let socket = node.run_dir().join("app/app.sock");
        let state = shared.clone();
        let thread = std::thread::spawn(move || {
            while !state.stop.load(SeqCst) {
                // The broker is killed on purpose: what was not acknowledged is not counted, and on we go.
                if publish(&socket, lamp, &state).is_err() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// All accounts as they are.
    pub fn accounts(&self) -> Vec<Account> {
        self.shared.with(|a| a.clone())
    }

    /// Publishes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(SeqCst)
    }

    /// Whether the lamp reports.
    pub fn hold_lamp(&self, on: bool) {
        self.shared.hold.store(on, SeqCst);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Publishes over one connection until it breaks.
fn publish(socket: &Path, lamp: &str, state: &LedgerState) -> std::io::Result<()> {
    // One client id: the broker ends an old connection before the next is heard.
    let mut client = Publisher::unix(socket, "app.soak")?;
    let mut waiting: HashMap<u16, (usize, u64)> = HashMap::new();
    let mut turn = 0;
    while !state.stop.load(SeqCst) {
        let which = if turn % 16 == 15 && !state.hold.load(SeqCst) {
            TOPICS
        } else {
            turn % TOPICS
        };
        turn += 1;
        let number = state.with(|a| {
            a[which].sent += 1;
            a[which].sent
        });
        let id = if which == TOPICS {
            let update = json!({ "event_id": "", "timestamp": 0, "twin": { "level": { "actual": { "value": number.to_string() } } } });
            client.publish(
                &format!("$hw/events/device/default/{lamp}/twin/update"),
                update.to_string().as_bytes(),
                false,
            )
        } else {
            client.publish(
                &format!("app/soak/{which}"),
                number.to_string().as_bytes(),
                true,
            )
        };
        waiting.insert(id, (which, number));
        client.flush()?;
        while client.in_flight() >= WINDOW {
            if let Some((which, number)) = waiting.remove(&client.acknowledged()?) {
                state.with(|a| a[which].acknowledged = number);
                state.acknowledged.fetch_add(1, SeqCst);
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}
