//! A process that dies anywhere, any number of times, arrives at the same documents, and spends a
//! generation only where a value changes.

// The helpers here are test code too.
#![allow(clippy::unwrap_used)]

mod bench;

use bench::*;
use edgebus_bus::payload::{Gen, Want};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A small generator, so that a failure can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Something that happens: a retained topic of somebody else's, or a message into the inbox.
#[derive(Clone)]
enum Step {
    Retain(&'static str, Value),
    Inbox(&'static str, Value),
}

fn steps(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let mut uid = 1;
    let mut out = vec![Step::Retain("obj/devicemodel/default/thermostat", model())];
    for n in 0..30 {
        let value = json!(dice.roll(3) + 20);
        out.push(match dice.roll(10) {
            0 | 1 => Step::Retain("obj/device/default/d1", device(&format!("u{uid}"), "modbus", value)),
            2 => Step::Retain("obj/device/default/d1", device(&format!("u{uid}"), "mqtt", value)),
            3 => {
                uid += 1;
                Step::Retain("obj/device/default/d1", Value::Null)
            }
            4 => Step::Retain("mapper/modbus/hello", hello("modbus")),
            5 => Step::Inbox("twin/default/d1/set", json!({"id": format!("w{n}"), "props": {"temp": value}})),
            6 => Step::Inbox("twin/default/d1/set", json!({"id": format!("w{n}"), "props": {"temp": null, "mode": "eco"}})),
            7 => Step::Inbox(
                "$hw/events/device/d1/twin/update",
                json!({"event_id": "e", "twin": {"mode": {"actual": {"value": format!("m{value}")}}}}),
            ),
            _ => Step::Inbox("dev/modbus/default/d1/report", report(n, value)),
        });
    }
    out
}

fn take(b: &mut Bench, step: &Step) {
    match step {
        Step::Retain(topic, value) => b.retain_quietly(topic, value),
        Step::Inbox(topic, value) => b.send_raw(topic, &serde_json::to_vec(value).unwrap()),
    }
}

/// Documents without what depends on how often the process started.
fn documents(b: &Bench) -> BTreeMap<String, Value> {
    fn plain(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("gen");
                map.values_mut().for_each(plain);
            }
            Value::Array(list) => list.iter_mut().for_each(plain),
            _ => {}
        }
    }
    b.retained
        .iter()
        .map(|(topic, payload)| {
            let mut value = serde_json::from_slice(payload).unwrap();
            plain(&mut value);
            (topic.clone(), value)
        })
        .collect()
}

/// Each `want` that was ever put: a property's generation changes exactly with its value.
fn generations_follow_values(b: &Bench, seed: u64) {
    let mut last: BTreeMap<String, (Gen, Value)> = BTreeMap::new();
    for (topic, value) in b.puts.iter().filter(|(t, _)| t.ends_with("/want")) {
        if value.is_null() {
            last.clear();
            continue;
        }
        let want: Want = serde_json::from_value(value.clone()).unwrap();
        for (name, wanted) in want.props {
            if let Some((old_gen, old)) = last.get(&name) {
                if *old == wanted.value && *old_gen != wanted.r#gen {
                    // Away and back between two publishes is a change as well; not in these steps
                    // unless several were taken in one burst, which they are not.
                    panic!(
                        "seed {seed}: {topic} {name}: {old} was given {old_gen:?} and {:?}",
                        wanted.r#gen
                    );
                }
                assert!(
                    *old == wanted.value || *old_gen != wanted.r#gen,
                    "seed {seed}: {topic} {name}"
                );
            }
            last.insert(name, (wanted.r#gen, wanted.value));
        }
    }
}

fn run(seed: u64, crashes: bool) -> Bench {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut b = Bench::new();
    for step in steps(seed) {
        take(&mut b, &step);
        if crashes && dice.roll(3) == 0 {
            // Some of what follows is out; then the process is killed, any number of times. What
            // came through the inbox was not acknowledged and comes again.
            loop {
                b.flush_only(dice.roll(6) as usize);
                b.restart();
                if let Step::Inbox(..) = &step {
                    take(&mut b, &step);
                }
                if dice.roll(2) == 0 {
                    break;
                }
            }
        }
        b.flush();
    }
    b
}

/// As many as are quick; `SEEDS=n` for more.
fn seeds(usually: u64) -> std::ops::RangeInclusive<u64> {
    let more = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok());
    1..=more.unwrap_or(usually)
}

#[test]
fn crashes_anywhere_lead_to_the_same_documents() {
    for seed in seeds(120) {
        let calm = run(seed, false);
        let wild = run(seed, true);
        let (calm_docs, wild_docs) = (documents(&calm), documents(&wild));
        for topic in calm_docs.keys().chain(wild_docs.keys()) {
            assert_eq!(
                calm_docs.get(topic),
                wild_docs.get(topic),
                "seed {seed}: {topic}"
            );
        }
        generations_follow_values(&calm, seed);
        generations_follow_values(&wild, seed);
    }
}

#[test]
fn a_restart_at_rest_says_nothing_new() {
    for seed in seeds(60) {
        let mut b = run(seed, true);
        let before = b.retained.clone();
        b.sent.clear();
        b.restart();
        assert_eq!(b.retained, before, "seed {seed}");
        assert_eq!(b.sent, [], "seed {seed}");
    }
}
