//! Every payload of the tree, pinned: one file per type under `golden/`, read and written again
//! without a difference, and with an unknown field as well. Files are added, never edited.

#![allow(clippy::unwrap_used)]

use edgebus_bus::payload::*;
use edgebus_bus::table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn same<T: Serialize + DeserializeOwned>(name: &str, bytes: &[u8]) {
    let file: Value = serde_json::from_slice(bytes).unwrap();
    let value: T = read(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    let again: Value = serde_json::from_slice(&write(&value)).unwrap();
    assert_eq!(again, file, "{name} is written as it was read");

    // A later version adds fields; today's readers pass over them.
    if let Value::Object(mut more) = file {
        more.insert("added-later".into(), Value::from(1));
        let bytes = serde_json::to_vec(&more).unwrap();
        read::<T>(&bytes).unwrap_or_else(|e| panic!("{name} with a new field: {e}"));
    }
}

fn check(name: &str, bytes: &[u8]) {
    match name {
        "Health" => same::<Health>(name, bytes),
        "Ask" => same::<Ask>(name, bytes),
        "Tell" => same::<Tell>(name, bytes),
        "LinkState" => same::<LinkState>(name, bytes),
        "NodeSpec" => same::<NodeSpec>(name, bytes),
        "NodeStatus" => same::<NodeStatus>(name, bytes),
        "Beat" => same::<Beat>(name, bytes),
        "Obj" => same::<Obj>(name, bytes),
        "Sealed" => same::<Sealed>(name, bytes),
        "SyncMark" => same::<SyncMark>(name, bytes),
        "PodStatus" => same::<PodStatus>(name, bytes),
        "Event" => same::<Event>(name, bytes),
        "Hello" => same::<Hello>(name, bytes),
        "Found" => same::<Found>(name, bytes),
        "DeviceConfig" => same::<DeviceConfig>(name, bytes),
        "Want" => same::<Want>(name, bytes),
        "Mark" => same::<Mark>(name, bytes),
        "Report" => same::<Report>(name, bytes),
        "DeviceState" => same::<DeviceState>(name, bytes),
        "Sample list" => same::<Vec<Sample>>(name, bytes),
        "DeviceEvent" => same::<DeviceEvent>(name, bytes),
        "Alert" => same::<Alert>(name, bytes),
        "Call" => same::<Call>(name, bytes),
        "CallDone" => same::<CallDone>(name, bytes),
        "TwinDesired" => same::<TwinDesired>(name, bytes),
        "Twin" => same::<Twin>(name, bytes),
        "TwinSet" => same::<TwinSet>(name, bytes),
        "TwinSetDone" => same::<TwinSetDone>(name, bytes),
        other => panic!("no type is known for {other}"),
    }
}

#[test]
fn every_payload_of_the_table_is_pinned_and_stable() {
    let named = table::rows().filter_map(|row| row.payload.strip_prefix("payload::"));
    let names: BTreeSet<_> = named.collect();
    assert!(names.len() > 20, "{names:?}");
    let mut missing = Vec::new();
    for name in names {
        let file = folder().join(format!("{}.json", name.replace(' ', "-")));
        match std::fs::read(&file) {
            Ok(bytes) => check(name, &bytes),
            Err(_) => missing.push(file),
        }
    }
    assert!(missing.is_empty(), "add {missing:?}");
}

#[test]
fn wrong_payloads_say_where_they_are_wrong() {
    for (bytes, says) in [
        (&b"{"[..], "'}' is missing"),
        (b"\"text\"", "should be an object"),
        (br#"{"seq":-1,"at":"x","props":{}}"#, "-1"),
        (
            br#"{"seq":1,"at":"x","props":{"t":{"at":"x","quality":"fine"}}}"#,
            "fine",
        ),
        (br#"{"at":"x","props":{}}"#, "seq"),
        (b"\xff\xfe", "byte 0 is 0xff"),
    ] {
        let said = read::<Report>(bytes).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}
