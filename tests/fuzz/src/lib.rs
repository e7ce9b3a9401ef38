//! What is done with bytes from outside, one function per decoder: none may panic, and what was taken must
//! survive being written again. libFuzzer calls them through `targets/`; `tests/tests/fuzz_corpus.rs` calls the
//! same functions in every ordinary test run, with the corpus and damaged copies of it.
//!
//! A long run, from the root of the repository (`--sanitizer none`: our code has no `unsafe` to watch):
//!
//! ```text
//! cp Cargo.lock tests/fuzz/
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none bus tests/fuzz/corpus/bus -- -max_len=4096 -max_total_time=3600
//! ```
//! `mqtt`, `proto` and `json` share their seeds with the tests of their crates: give as folder
//! `broker/eventbus/tests/corpus/codec` or `cloud-bridge/standalone/tests/corpus/{proto,json}`; `proto` and `json`
//! need `--features standalone`.

use bytes::{Bytes, BytesMut};
use edgebus_api::{Device, DeviceModel, DeviceStatus, cycle, merge};
use edgebus_bus::payload::{self, *};
use edgebus_bus::{Topic, explain, filter, lookup, table};
use edgebus_eventbus::codec::{Packet, Version, decode, encode};
use edgebus_hw as hw;
use edgebus_linkproto as link;
use edgebus_mapper_modbus::batch::batches;
use edgebus_mapper_modbus::config::{Dev, Form, Point};
use edgebus_mapper_modbus::value;
use edgebus_mapper_sdk::lower_keys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;

/// An error is read by people, in a status or an answer: it quotes what it refuses, but not all of it.
const LONGEST_ERROR: usize = 2000;

fn short(error: impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= LONGEST_ERROR, "{text}");
}

/// The first `N` lines as text, and what follows them.
fn lines<const N: usize>(data: &[u8]) -> Option<([&str; N], &[u8])> {
    let mut out = [""; N];
    let mut rest = data;
    for line in &mut out {
        let end = rest.iter().position(|b| *b == b'\n')?;
        *line = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
    }
    Some((out, rest))
}

/// Reads, writes and reads again.
fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    match payload::read::<T>(bytes) {
        Ok(value) => {
            let written = payload::write(&value);
            if let Err(e) = payload::read::<T>(&written) {
                panic!(
                    "{} was written and is refused: {e}",
                    String::from_utf8_lossy(&written)
                );
            }
        }
        Err(e) => short(e),
    }
}

/// Line 1: a topic, or the name of a payload type; line 2: a filter; then a payload.
pub fn bus(data: &[u8]) {
    let Some(([topic, pattern], bytes)) = lines::<2>(data) else {
        return;
    };
    let row = match Topic::parse(topic) {
        Ok(parsed) => {
            assert_eq!(parsed.to_string(), topic);
            assert_eq!(
                filter::check_name(topic),
                Ok(()),
                "{topic} can be published to"
            );
            let row = parsed.row();
            assert!(
                table::pattern_matches(row.pattern, topic),
                "{topic} {}",
                row.pattern
            );
            Some(row)
        }
        Err(e) => {
            short(e);
            lookup(topic)
        }
    };
    let names = [filter::check_name(topic), filter::check_filter(pattern)];
    let matched = filter::matches(pattern, topic);
    assert_eq!(
        filter::overlap(pattern, topic),
        filter::overlap(topic, pattern)
    );
    if names == [Ok(()), Ok(())] && matched {
        assert!(filter::overlap(pattern, topic), "{pattern} matches {topic}");
    }
    drop(explain::explain(pattern));
    match row.map_or(topic, |r| r.payload.trim_start_matches("payload::")) {
        "Health" => again::<Health>(bytes),
        "Ask" => again::<Ask>(bytes),
        "Tell" => again::<Tell>(bytes),
        "LinkState" => again::<LinkState>(bytes),
        "NodeSpec" => again::<NodeSpec>(bytes),
        "NodeStatus" => again::<NodeStatus>(bytes),
        "Beat" => again::<Beat>(bytes),
        "Obj" => again::<Obj>(bytes),
        "Sealed" => again::<Sealed>(bytes),
        "SyncMark" => again::<SyncMark>(bytes),
        "PodStatus" => again::<PodStatus>(bytes),
        "Event" => again::<Event>(bytes),
        "Hello" => again::<Hello>(bytes),
        "Found" => again::<Found>(bytes),
        "DeviceConfig" => again::<DeviceConfig>(bytes),
        "Want" => again::<Want>(bytes),
        "Mark" => again::<Mark>(bytes),
        "Report" => again::<Report>(bytes),
        "DeviceState" => again::<DeviceState>(bytes),
        "Sample list" => again::<Vec<Sample>>(bytes),
        "DeviceEvent" => again::<DeviceEvent>(bytes),
        "Alert" => again::<Alert>(bytes),
        "Call" => again::<Call>(bytes),
        "CallDone" => again::<CallDone>(bytes),
        "TwinDesired" => again::<TwinDesired>(bytes),
        "Twin" => again::<Twin>(bytes),
        "TwinSet" => again::<TwinSet>(bytes),
        "TwinSetDone" => again::<TwinSetDone>(bytes),
        _ => {}
    }
}

/// Line 1: a `$hw` topic; line 2: a type of value; then a payload.
pub fn hw(data: &[u8]) {
    let Some(([topic, kind], bytes)) = lines::<2>(data) else {
        return;
    };
    if let Err(e) = hw::Asked::parse(topic) {
        short(e);
    }
    drop(hw::head_of(bytes));
    for refused in [hw::read_get(bytes).err(), hw::read_state(bytes).err()]
        .into_iter()
        .flatten()
    {
        short(refused);
    }
    let update = match hw::TwinUpdate::read(bytes) {
        Ok(update) => update,
        Err(e) => return short(e),
    };
    let Ok(kind) = serde_json::from_value::<ValueType>(Value::from(kind)) else {
        return;
    };
    for said in update.twin.into_values().flatten() {
        for text in [said.actual, said.expected].into_iter().flatten() {
            match hw::value::typed(kind, &text.value) {
                Ok(value) => {
                    let text = hw::value::to_text(&value);
                    let back = hw::value::typed(kind, &text).expect("what we write we read");
                    assert_eq!(hw::value::to_text(&back), text);
                }
                Err(e) => short(e),
            }
        }
    }
}

/// One message of the cloud link; then the same bytes as what `join` reads.
pub fn link(data: &[u8]) {
    match link::decode(Bytes::copy_from_slice(data)) {
        // A message without frames is one that nobody writes.
        Ok(frames) if frames.is_empty() => {}
        Ok(frames) => {
            let written = link::encode_message(&frames).expect("what was read can be written");
            assert_eq!(link::decode(written), Ok(frames));
        }
        Err(e) => short(e),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Err(e) = text.parse::<link::JoinToken>() {
            short(e);
        }
        if let Some(hash) = link::Hash::from_hex(text) {
            assert_eq!(link::Hash::from_hex(&hash.to_hex()), Some(hash));
        }
    }
    drop(payload::read::<link::EnrolRequest>(data));
    drop(payload::read::<link::EnrolReply>(data));
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        let text = link::canonical_json(&value);
        let same: Value = serde_json::from_str(&text).expect("canonical JSON is JSON");
        assert_eq!(link::canonical_json(&same), text);
    }
}

/// A Device, DeviceModel or DeviceStatus, as YAML or JSON; a list of two is a model and its device.
pub fn device(data: &[u8]) {
    let value = match serde_json::from_slice(data) {
        Ok(value) => value,
        Err(_) => match serde_saphyr::from_slice::<Value>(data) {
            Ok(value) => value,
            Err(_) => return,
        },
    };
    again::<DeviceStatus>(&payload::write(&value));
    let (model, device) = match &value {
        Value::Array(two) if two.len() == 2 => (&two[0], &two[1]),
        one => (one, one),
    };
    again::<DeviceModel>(&payload::write(model));
    again::<Device>(&payload::write(device));
    if let Value::Object(object) = device {
        let mut once = object.clone();
        edgebus_api::trim(&mut once);
        let mut twice = once.clone();
        edgebus_api::trim(&mut twice);
        assert_eq!(once, twice, "trimming twice is trimming once");
    }
    let (model, device) = match (
        payload::read_value::<DeviceModel>(model),
        payload::read_value::<Device>(device),
    ) {
        (Ok(model), Ok(device)) => (model, device),
        (model, device) => {
            model.err().map(short).unwrap_or_default();
            return device.err().map(short).unwrap_or_default();
        }
    };
    let under = &model.spec.protocol_config_data;
    let over = &device.spec.protocol.config_data;
    let merged = merge::merged(under, over);
    for (key, value) in over {
        assert!(
            value.is_null() || merge::get(&merged, key).is_some(),
            "{key}"
        );
    }
    for p in &device.spec.properties {
        for refused in [
            cycle::collect(p.collect_period.as_deref(), p.collect_cycle).err(),
            cycle::report(p.report_period.as_deref(), p.report_cycle).err(),
        ]
        .into_iter()
        .flatten()
        {
            short(refused);
        }
        for m in model.spec.properties.iter().filter(|m| m.name == p.name) {
            drop(merge::merged(
                &m.visitors.config_data,
                &p.visitors.config_data,
            ));
        }
    }
}

/// Line 1: `{"config": …, "property": …, "visitor": …, "value": …}`; then the registers that the device answers.
pub fn modbus(data: &[u8]) {
    let Some(([line], registers)) = lines::<1>(data) else {
        return;
    };
    let Ok(given) = serde_json::from_str::<Value>(line) else {
        return;
    };
    let object = |key: &str| given[key].as_object().map(lower_keys).unwrap_or_default();
    let dev = match Dev::read(&object("config")) {
        Ok(dev) => dev,
        Err(e) => return short(e),
    };
    let property = match payload::read_value::<PropertyConfig>(&given["property"]) {
        Ok(property) => property,
        Err(e) => return short(e),
    };
    let point = match Point::read(&dev, &property, &object("visitor")) {
        Ok(point) => point,
        Err(e) => return short(e),
    };
    let end = u32::from(point.address) + u32::from(point.count);
    for batch in batches(&dev, &[&point, &point]) {
        let last = u32::from(batch.address) + u32::from(batch.count);
        assert!(batch.address <= point.address && end <= last && last <= 1 << 16);
    }
    let cells: Vec<u16> = registers
        .chunks_exact(2)
        .map(|c| u16::from_be_bytes([c[0], c[1]]))
        .collect();
    if let Some(cells) = cells.get(..usize::from(point.count)) {
        match value::decode(&point, cells) {
            Ok(read) => {
                let plain = point.scale == 1.0 && point.shift == 0.0;
                let exact = matches!(point.form, Form::Int { .. }) && point.kind == ValueType::Int;
                if plain && exact {
                    assert_eq!(value::encode(&point, &read).expect("it was read"), cells);
                } else {
                    drop(value::encode(&point, &read));
                }
            }
            Err(e) => short(e.why),
        }
    }
    match value::encode(&point, &given["value"]) {
        Ok(cells) => {
            assert!(cells.len() == usize::from(point.count) || matches!(point.form, Form::Bool));
            drop(value::decode(&point, &cells));
        }
        Err(e) => short(e.why),
    }
}

/// What a client sends, of both versions: every packet in turn, until one is refused or not whole.
pub fn mqtt(data: &[u8]) {
    const MAX: usize = 1 << 16;
    for first in [None, Some(Version::V4), Some(Version::V5)] {
        let mut input = BytesMut::from(data);
        let mut version = first;
        loop {
            match decode(&mut input, version, MAX) {
                Ok(Some(packet)) => {
                    let mut written = BytesMut::new();
                    encode(&packet, version.unwrap_or(Version::V4), &mut written)
                        .expect("what was read can be written");
                    let back = decode(&mut written, version, MAX);
                    assert_eq!(back.as_ref().ok(), Some(&Some(packet.clone())), "{back:?}");
                    if let Packet::Connect(connect) = packet {
                        version = Some(connect.version);
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    short(e);
                    break;
                }
            }
        }
    }
}
