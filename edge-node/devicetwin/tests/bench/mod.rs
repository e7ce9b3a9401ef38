//! A bus in memory around the core: retained topics, what was sent, restarts and crashes.

#![allow(clippy::unwrap_used, dead_code)]

use edgebus_bus::payload::{Twin, TwinDesired, Want};
use edgebus_bus::{ROOT, filter, table, table::Retain};
use edgebus_devicetwin::intake::{self, OWN, STATE};
use edgebus_devicetwin::{Core, Input, Now, Out};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// 2026-01-01.
pub const START: i64 = 1_767_225_600_000;

pub struct Bench {
    pub retained: BTreeMap<String, Vec<u8>>,
    /// Passing messages since they were last taken.
    pub sent: Vec<(String, Value)>,
    /// Publishes of retained topics since the start, by topic.
    pub puts: Vec<(String, Value)>,
    pub core: Core,
    pub now: i64,
    starts: u32,
}

pub fn e(topic: &str) -> String {
    format!("{ROOT}/{topic}")
}

impl Bench {
    /// A node on which nothing is known yet; the mirrors are complete.
    pub fn new() -> Self {
        let mut bench = Self::bare();
        bench.mirror_complete();
        bench
    }

    /// A node whose link has never been complete.
    pub fn bare() -> Self {
        let mut bench = Self {
            retained: BTreeMap::new(),
            sent: vec![],
            puts: vec![],
            core: Core::new(None, "fresh0".into()),
            now: START,
            starts: 0,
        };
        bench.restart();
        bench
    }

    pub fn mirror_complete(&mut self) {
        for kind in ["device", "devicemodel"] {
            let mark = json!({"store_id": "b", "cluster_id": "c", "complete": true, "at": "x"});
            self.retain(&format!("sync/{kind}"), &mark);
        }
    }

    /// A process that starts and reads the bus.
    pub fn restart(&mut self) {
        self.starts += 1;
        let node = Some("gw".parse().unwrap());
        self.core = Core::new(node, format!("fresh{}", self.starts));
        let now = Now(self.now);
        self.core.step(Input::OwnBegins, now);
        self.list(OWN);
        self.core.step(Input::OwnEnds, now);
        self.core.step(Input::ListingBegins, now);
        self.list(STATE);
        self.core.step(Input::ListingEnds, now);
        self.flush();
    }

    /// The connection comes back: objects and own topics are listed again.
    pub fn reconnect(&mut self) {
        let now = Now(self.now);
        self.core.step(Input::ListingBegins, now);
        self.list(STATE);
        self.core.step(Input::ListingEnds, now);
        self.core.step(Input::OwnBegins, now);
        self.list(OWN);
        self.core.step(Input::OwnEnds, now);
        self.flush();
    }

    fn list(&mut self, filters: &[&str]) {
        let filters = intake::filters(filters);
        for (topic, payload) in &self.retained {
            if filters.iter().any(|f| filter::matches(f, topic)) {
                let input = intake::input(topic, Some(payload)).unwrap();
                self.core.step(input, Now(self.now));
            }
        }
    }

    /// Somebody retains this; the core sees it at once if it reads that.
    pub fn retain(&mut self, topic: &str, value: &Value) {
        self.retain_quietly(topic, value);
        self.flush();
    }

    /// The same, and the core says nothing yet.
    pub fn retain_quietly(&mut self, topic: &str, value: &Value) {
        let topic = e(topic);
        let payload = match value {
            Value::Null => vec![],
            other => serde_json::to_vec(other).unwrap(),
        };
        if let Some(input) = intake::input(&topic, Some(&payload)) {
            self.core.step(input, Now(self.now));
        }
        if payload.is_empty() {
            self.retained.remove(&topic);
        } else {
            self.retained.insert(topic, payload);
        }
    }

    /// A passing message to the core, and what it does about it.
    pub fn send(&mut self, topic: &str, value: &Value) {
        self.send_raw(topic, &serde_json::to_vec(value).unwrap());
        self.flush();
    }

    pub fn send_raw(&mut self, topic: &str, payload: &[u8]) {
        let topic = if topic.starts_with('$') {
            topic.to_owned()
        } else {
            e(topic)
        };
        if let Some(input) = intake::input(&topic, Some(payload)) {
            self.core.step(input, Now(self.now));
        }
    }

    pub fn flush(&mut self) {
        loop {
            for out in self.core.flush(Now(self.now)) {
                self.publish(out);
            }
            if !self.core.has_more() {
                return;
            }
        }
    }

    /// Flushes, and the process dies after `n` messages are out. Returns whether it was cut.
    pub fn flush_only(&mut self, n: usize) -> bool {
        let all = self.core.flush(Now(self.now));
        let cut = all.len() > n;
        for out in all.into_iter().take(n) {
            self.publish(out);
        }
        cut
    }

    pub fn publish(&mut self, out: Out) {
        let row = table::lookup(&out.topic).unwrap_or_else(|| panic!("no row for {}", out.topic));
        let identity = edgebus_bus::Identity::new(edgebus_bus::Role::DeviceTwin, "devicetwin");
        let retain = row.retain == Retain::Always;
        identity.may_publish(&out.topic, retain).unwrap();
        let value = serde_json::from_slice(&out.payload).unwrap_or(Value::Null);
        if !retain {
            self.sent.push((out.topic, value));
            return;
        }
        self.puts.push((out.topic.clone(), value));
        if out.payload.is_empty() {
            self.retained.remove(&out.topic);
        } else {
            self.retained.insert(out.topic, out.payload);
        }
    }

    pub fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.flush();
    }

    pub fn get<T: DeserializeOwned>(&self, topic: &str) -> Option<T> {
        self.retained
            .get(&e(topic))
            .map(|p| serde_json::from_slice(p).unwrap())
    }

    pub fn twin(&self, name: &str) -> Twin {
        self.get(&format!("twin/default/{name}")).unwrap()
    }
    pub fn desired(&self, name: &str) -> TwinDesired {
        self.get(&format!("twin/default/{name}/desired")).unwrap()
    }
    pub fn want(&self, mapper: &str, name: &str) -> Want {
        self.get(&format!("dev/{mapper}/default/{name}/want"))
            .unwrap()
    }

    /// status/reason: message of a condition.
    pub fn condition(&self, name: &str, kind: &str) -> String {
        let twin = self.twin(name);
        let found = twin.conditions.iter().find(|c| c.kind == kind);
        found.map_or("none".into(), |c| {
            format!("{}/{}: {}", c.status, c.reason, c.message)
        })
    }

    /// Takes what was sent on topics that end so.
    pub fn taken(&mut self, end: &str) -> Vec<Value> {
        let (hit, rest) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(topic, _): &(String, Value)| topic.ends_with(end));
        self.sent = rest;
        hit.into_iter().map(|(_, v)| v).collect()
    }

    pub fn events(&mut self) -> Vec<String> {
        self.taken("event/devicetwin")
            .iter()
            .map(|e| {
                format!(
                    "{} {} {}",
                    e["type"].as_str().unwrap(),
                    e["reason"].as_str().unwrap(),
                    e["note"].as_str().unwrap()
                )
            })
            .collect()
    }
}

/// `obj/devicemodel` of a thermostat: `temp` INT 0..100, `mode` STRING, `fw` STRING ReadOnly.
pub fn model() -> Value {
    json!({"rev": 1, "uid": "m1", "obj": {
    "kind": "DeviceModel", "metadata": {"name": "thermostat", "namespace": "default"},
    "spec": {"protocol": "modbus", "properties": [
        {"name": "temp", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100",
         "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "offset": 1}}},
        {"name": "mode", "type": "STRING", "accessMode": "ReadWrite"},
        {"name": "fw", "type": "STRING", "accessMode": "ReadOnly"},
    ]}}})
}

/// `obj/device` of that model.
pub fn device(uid: &str, protocol: &str, desired: Value) -> Value {
    json!({"rev": 2, "uid": uid, "obj": {
    "kind": "Device", "metadata": {"name": "d1", "namespace": "default", "uid": uid},
    "spec": {
        "deviceModelRef": {"name": "thermostat"}, "nodeName": "gw",
        "protocol": {"protocolName": protocol, "configData": {"ip": "10.0.0.9"}},
        "properties": [{"name": "temp", "collectCycle": 500, "desired": {"value": desired}},
                       {"name": "mode"}],
    }}})
}

pub fn hello(protocol: &str) -> Value {
    json!({"protocol": protocol, "version": "1", "api": 1, "features": ["write", "call"]})
}

pub fn report(seq: u64, value: Value) -> Value {
    json!({"seq": seq, "boot": "b", "at": "2026-01-01T00:00:01.000Z",
           "props": {"temp": {"value": value, "at": "2026-01-01T00:00:01.000Z"}}})
}

/// A node with model, device `d1` and its mapper.
pub fn served(desired: Value) -> Bench {
    let mut b = Bench::new();
    b.retain("mapper/modbus/hello", &hello("Modbus"));
    b.retain("obj/devicemodel/default/thermostat", &model());
    b.retain("obj/device/default/d1", &device("u1", "modbus", desired));
    b
}

/// A node with model and device `d1` that a client on the bus serves.
pub fn on_the_bus(desired: Value) -> Bench {
    let mut b = Bench::new();
    b.retain("obj/devicemodel/default/thermostat", &model());
    b.retain("obj/device/default/d1", &device("u1", "mqtt", desired));
    b
}
