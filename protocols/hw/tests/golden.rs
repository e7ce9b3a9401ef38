//! Answers as KubeEdge's clients expect them, byte for byte: one file per topic under `golden/`.
//! Files are added, never edited.

// The helpers here are test code too.
#![allow(clippy::unwrap_used)]

use edgebus_bus::payload::ValueType;
use edgebus_hw::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::PathBuf;

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, made: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.json"));
    if std::env::var_os("ADD").is_some() && !path.exists() {
        std::fs::write(&path, serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(made).unwrap(), file, "{name}");
    let read: T = serde_json::from_str(&text).unwrap();
    assert_eq!(&read, made, "{name}");
}

fn head() -> Head {
    Head {
        event_id: "e1".into(),
        timestamp: 1_700_000_000_000,
    }
}

fn temp() -> Twin {
    Twin::new(
        ValueType::Int,
        Some((&json!(20), Some(1_700_000_000_001))),
        Some((&json!(19), Some(1_700_000_000_002))),
    )
}

#[test]
fn twin_get_result() {
    let twin = [("temp".to_owned(), temp())].into();
    golden("twin-get-result", &TwinResult { head: head(), twin });
}

#[test]
fn twin_update_result() {
    let said = Twin::new(ValueType::Boolean, None, Some((&json!(true), None)));
    let twin = [("on".to_owned(), said)].into();
    golden("twin-update-result", &TwinResult { head: head(), twin });
}

#[test]
fn refusal() {
    let refusal = Refusal {
        head: head(),
        code: 404,
        reason: "no device \"default/pump\" on this node".into(),
    };
    golden("refusal", &refusal);
}

#[test]
fn document() {
    let change = Change {
        last: None,
        current: Some(temp()),
    };
    let twin = [("temp".to_owned(), change)].into();
    golden("twin-update-document", &Document { head: head(), twin });
}

#[test]
fn delta_only_where_something_expected_differs() {
    let twin: Twins = [("temp".to_owned(), temp())].into();
    let delta = Delta::new(head(), twin.clone(), |_| true).unwrap();
    golden("twin-update-delta", &delta);
    assert_eq!(Delta::new(head(), twin, |_| false), None);
}

#[test]
fn state_result() {
    let device = DeviceState {
        name: "pump".into(),
        state: "online".into(),
        last_online_time: "2026-01-02T03:04:05Z".into(),
    };
    golden(
        "state-update-result",
        &StateResult {
            head: head(),
            device,
        },
    );
}

#[test]
fn membership() {
    let member = Member {
        id: "default/pump".into(),
        name: "pump".into(),
        description: "".into(),
        state: "online".into(),
        last_online: "2026-01-02T03:04:05Z".into(),
        attributes: Default::default(),
    };
    let devices = vec![member];
    golden(
        "membership-get-result",
        &Membership {
            head: head(),
            devices,
        },
    );
}

#[test]
fn membership_updated() {
    let new = NewMember {
        id: "default/pump".into(),
        name: "pump".into(),
        ..NewMember::default()
    };
    golden(
        "membership-updated",
        &MembershipUpdated {
            head: head(),
            added_devices: Some(vec![new]),
            removed_devices: None,
        },
    );
}
