//! Story D at any length: a node and its cloud under load, whose processes are killed and paused at
//! random, and what must hold after each blow.
//!
//! ```text
//!  load:  API ──desired──► register     register ──► DeviceStatus     MQTT client ──QoS 1──► app/#, $hw/…
//!  blows: kill -9 of warden, broker, link, edged, devicetwin, mapper, cloud-bridge, standalone;
//!         SIGSTOP of edged and link
//! ```
//! Whoever kills a process that systemd would start again (warden, cloud-bridge, standalone) starts it
//! again; everything else has to come back by itself.

mod check;
mod load;

use crate::api::{Kube, device, model, properties};
use crate::node::Node;
use crate::plant::Plant;
use crate::run::send;
use crate::{Cloud, eventually};
use load::{Desire, Ledger};
use rustix::process::Signal;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Name of the node.
const NODE: &str = "soak";
/// The polled device.
const PUMP: &str = "pump";
/// The device that an MQTT client plays.
const LAMP: &str = "lamp";
/// How often both properties are read.
const CYCLE_MS: u32 = 100;
/// After this a silent node is NotReady; a node beats each 10 s.
const GRACE_S: u64 = 15;
/// A beat this old is not passed on any more: a node that hangs, not one that is cut off.
const BEAT_S: u64 = 40;
/// After so many violations there is nothing more to learn.
const ENOUGH: usize = 5;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// How many blows; at most [`Spec::MOST`].
    pub kills: u32,
    /// The same seed deals the same blows.
    pub seed: u64,
}

impl Spec {
    /// Desired values are 16-bit numbers that only grow.
    pub const MOST: u32 = 2000;
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Blows dealt, pauses included.
    pub kills: u32,
    /// Of them pauses.
    pub pauses: u32,
    /// Assertions made.
    pub checks: u32,
    /// Publishes acknowledged.
    pub publishes: u64,
    /// Desired values acknowledged by the API.
    pub desired: u64,
    /// What did not hold.
    pub violations: Vec<String>,
    /// Longest time until everything was back, and after which blow.
    pub slowest: (Duration, String),
    /// What took longest to become true after the present blow, and since when we look.
    longest: (Duration, String),
    mark: Option<Instant>,
    /// The seed.
    pub seed: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kills,
            pauses,
            checks,
            publishes,
            desired,
            violations,
            slowest,
            seed,
            ..
        } = self;
        writeln!(
            f,
            "{publishes} publishes and {desired} desired values acknowledged; slowest recovery {:.1} s ({})",
            slowest.0.as_secs_f64(),
            slowest.1
        )?;
        write!(
            f,
            "soak: {kills} kills ({pauses} of them pauses), {checks} checks, {} violations, seed {seed}",
            violations.len()
        )
    }
}

/// A blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// `kill -9` of a unit.
    Kill(&'static str),
    /// `kill -9` of `edgebus node`.
    Warden,
    /// `kill -9` of cloud-bridge.
    Bridge,
    /// `kill -9` of the API server.
    Standalone,
    /// SIGSTOP for a moment.
    Pause(&'static str),
    /// SIGSTOP of edged until its node is NotReady.
    Hang,
}

const BLOWS: [Blow; 10] = [
    Blow::Kill("broker"),
    Blow::Kill("link"),
    Blow::Kill("edged"),
    Blow::Kill("devicetwin"),
    Blow::Kill("modbus"),
    Blow::Warden,
    Blow::Bridge,
    Blow::Standalone,
    Blow::Pause("edged"),
    Blow::Pause("link"),
];

/// splitmix64: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// The blows in order: every kind comes once before any comes again; now and then two at once.
fn plan(spec: Spec, dice: &mut Dice) -> Vec<Vec<Blow>> {
    let mut steps: Vec<Vec<Blow>> = Vec::new();
    let mut bag: Vec<Blow> = Vec::new();
    let mut dealt = 0;
    // It takes most of a minute, so it is not thrown with the others.
    let hang_at = (spec.kills >= 10).then_some(spec.kills / 2);
    while dealt < spec.kills {
        if hang_at.is_some_and(|at| dealt % 100 == at % 100) {
            dealt += 1;
            steps.push(vec![Blow::Hang]);
            continue;
        }
        if bag.is_empty() {
            bag = BLOWS.to_vec();
        }
        let at = usize::try_from(dice.roll(bag.len() as u64)).unwrap_or(0);
        let blow = bag.swap_remove(at);
        dealt += 1;
        match steps.last_mut() {
            Some(last)
                if last.len() == 1
                    && last[0] != blow
                    && last[0] != Blow::Hang
                    && dice.roll(4) == 0 =>
            {
                last.push(blow)
            }
            _ => steps.push(vec![blow]),
        }
    }
    steps
}

/// Everything that runs.
struct Stage {
    cloud: Cloud,
    node: Node,
    kube: Kube,
    plant: Plant,
    desire: Desire,
    ledger: Ledger,
    /// Last value given to the read-only register, and to the ConfigMap.
    turn: u16,
}

/// Runs it; `say` gets a line of progress per step.
pub fn run(spec: Spec, say: &mut dyn FnMut(&str)) -> Summary {
    assert!(
        spec.kills <= Spec::MOST,
        "at most {} kills, not {}",
        Spec::MOST,
        spec.kills
    );
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut stage = Stage::set(dir.path());
    let mut dice = Dice(spec.seed);
    let mut summary = Summary {
        seed: spec.seed,
        ..Summary::default()
    };
    let steps = plan(spec, &mut dice);
    for blows in steps {
        std::thread::sleep(dice.ms(100, 700));
        let before = stage.pids();
        let mut hit = BTreeSet::new();
        let begun = Instant::now();
        let named = blows
            .iter()
            .map(|b| format!("{b:?}"))
            .collect::<Vec<_>>()
            .join(" + ");
        for (i, blow) in blows.into_iter().enumerate() {
            if i > 0 {
                std::thread::sleep(dice.ms(0, 400));
            }
            stage.strike(blow, &mut dice, &mut hit, &mut summary);
        }
        summary.mark = Some(Instant::now());
        summary.longest = Default::default();
        stage.check(&before, &hit, &named, &mut summary);
        let took = begun.elapsed();
        if took > summary.slowest.0 && !named.contains("Hang") {
            let (long, what) = &summary.longest;
            summary.slowest = (
                took,
                format!("{named}; {:.1} s of it until {what}", long.as_secs_f64()),
            );
        }
        say(&format!(
            "{:>4} {named}: all well after {:.1} s",
            summary.kills,
            took.as_secs_f64()
        ));
        summary
            .violations
            .iter()
            .skip_while(|v| !v.starts_with(&named))
            .for_each(|v| say(&format!("     {v}")));
        if summary.violations.len() >= ENOUGH {
            break;
        }
    }
    summary.publishes = stage.ledger.acknowledged();
    summary.desired = stage.desire.acknowledged();
    drop(stage);
    if !summary.violations.is_empty() {
        say(&format!("logs are kept in {}", dir.keep().display()));
    }
    summary
}

impl Stage {
    fn set(dir: &std::path::Path) -> Self {
        let plant = Plant::start();
        let cloud = Cloud::start_with(dir, GRACE_S);
        let node = Node::joined(dir, NODE, &cloud);
        let kube = Kube::new(&cloud);
        eventually("the node is Ready", || kube.node_ready(NODE));
        let made = [
            kube.create("devicemodels", model("pump")),
            kube.create("devices", device(PUMP, "pump", NODE, plant.port, 1, properties(CYCLE_MS, 1))),
            kube.create("devicemodels", lamp_model()),
            kube.create("devices", lamp()),
            kube.create("configmaps", json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": { "turn": "0" },
                "metadata": { "name": "soak", "namespace": "default", "labels": { "edgebus.io/node": NODE } },
            })),
        ];
        made.into_iter()
            .for_each(|m| m.expect("the API takes the objects of the load"));
        eventually("the first value is in the register", || {
            match plant.get(1, 0) {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        });
        let desire = Desire::start(&cloud, PUMP, CYCLE_MS);
        let ledger = Ledger::start(&node, LAMP);
        eventually("the load flows", || {
            match (desire.acknowledged(), ledger.acknowledged()) {
                (d, l) if d > 1 && l > 100 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        Self {
            cloud,
            node,
            kube,
            plant,
            desire,
            ledger,
            turn: 0,
        }
    }

    /// Every process by its role.
    fn pids(&self) -> BTreeMap<String, u32> {
        let units = self
            .node
            .state()
            .ok()
            .and_then(|s| s["units"].as_object().cloned())
            .unwrap_or_default();
        let pid = |u: &serde_json::Value| {
            u["pid"]
                .as_u64()
                .and_then(|p| u32::try_from(p).ok())
                .unwrap_or(0)
        };
        let mut all: BTreeMap<String, u32> = units
            .iter()
            .map(|(name, u)| (name.clone(), pid(u)))
            .collect();
        all.insert(
            "warden".into(),
            self.node.warden.as_ref().map_or(0, |w| w.pid()),
        );
        all.insert(
            "cloud-bridge".into(),
            self.cloud.bridge.as_ref().map_or(0, |b| b.pid()),
        );
        all.insert("standalone".into(), self.cloud.standalone.pid());
        all
    }

    /// Deals a blow; `hit` learns whose process is another one afterwards.
    fn strike(
        &mut self,
        blow: Blow,
        dice: &mut Dice,
        hit: &mut BTreeSet<String>,
        summary: &mut Summary,
    ) {
        summary.kills += 1;
        match blow {
            Blow::Kill(unit) => {
                self.node.kill_unit(unit);
                hit.insert(unit.into());
            }
            Blow::Warden => {
                hit.extend(
                    self.pids()
                        .into_keys()
                        .filter(|name| name != "cloud-bridge" && name != "standalone"),
                );
                if let Some(warden) = &mut self.node.warden {
                    warden.kill();
                }
                self.node.start();
            }
            Blow::Bridge => {
                self.cloud.cut();
                hit.insert("cloud-bridge".into());
                std::thread::sleep(dice.ms(0, 1000));
                self.cloud.connect();
            }
            Blow::Standalone => {
                self.cloud.restart_api();
                hit.insert("standalone".into());
            }
            Blow::Pause(unit) => {
                summary.pauses += 1;
                let pid = eventually(&format!("{unit} runs"), || self.node.pid(unit));
                send(pid, Signal::STOP);
                std::thread::sleep(dice.ms(300, 2500));
                send(pid, Signal::CONT);
            }
            Blow::Hang => {
                summary.pauses += 1;
                self.hang(summary);
            }
        }
    }

    /// A hung edged is a NotReady node, and nobody else notices.
    fn hang(&mut self, summary: &mut Summary) {
        let pid = eventually("edged runs", || self.node.pid("edged"));
        send(pid, Signal::STOP);
        self.check_devices("while edged hangs", summary);
        let end = Instant::now() + Duration::from_secs(BEAT_S + GRACE_S + 20);
        summary.checks += 1;
        while self.kube.node_ready(NODE).is_ok() {
            if Instant::now() > end {
                summary
                    .violations
                    .push("Hang: edged is stopped, but its node stays Ready".into());
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.check_devices("while the node is NotReady", summary);
        send(pid, Signal::CONT);
    }
}

fn lamp_model() -> serde_json::Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": { "name": "lamp", "namespace": "default" },
        "spec": { "protocol": "mqtt", "properties": [{ "name": "level", "type": "INT", "accessMode": "ReadWrite" }] },
    })
}

fn lamp() -> serde_json::Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": LAMP, "namespace": "default" },
        "spec": {
            "deviceModelRef": { "name": "lamp" }, "nodeName": NODE,
            "protocol": { "protocolName": "mqtt", "configData": {} },
            "properties": [{ "name": "level", "reportToCloud": true }],
        },
    })
}
