//! Devices served by mappers: assignment, desired values, reports, conditions, deletion.

mod bench;

use bench::*;
use edgebus_bus::payload::{DeviceConfig, DeviceUp, Quality};
use serde_json::{Value, json};

#[test]
fn a_device_reaches_its_mapper_and_its_value_comes_back() {
    let mut b = served(json!("21"));
    let config: DeviceConfig = b.get("dev/modbus/default/d1/config").unwrap();
    assert_eq!(config.uid, "u1");
    assert_eq!(config.protocol["ip"], "10.0.0.9");
    let temp = config.properties.iter().find(|p| p.name == "temp").unwrap();
    assert_eq!((temp.collect_ms, temp.maximum), (Some(500), Some(100.0)));
    let want = b.want("modbus", "d1");
    assert_eq!(want.props["temp"].value, json!(21));
    assert_eq!(want.r#gen, want.props["temp"].r#gen);

    let twin = b.twin("d1");
    assert_eq!(twin.mapper.as_deref(), Some("modbus"));
    assert!(!twin.props["temp"].synced);
    assert!(
        b.condition("d1", "Synced")
            .starts_with("False/Pending: \"temp\" should be 21 and is not known yet")
    );

    b.retain(
        "dev/modbus/default/d1/state",
        &json!({"state": "online", "at": "x"}),
    );
    b.send("dev/modbus/default/d1/report", &report(1, json!(21)));
    let twin = b.twin("d1");
    assert_eq!(twin.state, DeviceUp::Online);
    assert!(twin.last_online.is_some());
    assert_eq!(twin.props["temp"].reported, Some(json!(21)));
    assert!(twin.props["temp"].synced);
    assert_eq!(
        b.condition("d1", "Synced"),
        "True/Reached: every desired value is there"
    );
    assert_eq!(
        b.condition("d1", "Configured"),
        "True/Assigned: mapper \"modbus\" serves it over modbus"
    );
}

#[test]
fn a_burst_of_reports_is_one_publish() {
    let mut b = served(json!("21"));
    b.puts.clear();
    for n in 0..50 {
        let bytes = serde_json::to_vec(&report(n, json!(n))).unwrap();
        b.send_raw("dev/modbus/default/d1/report", &bytes);
    }
    b.flush();
    assert_eq!(b.puts.len(), 1, "{:?}", b.puts);
    assert_eq!(b.twin("d1").props["temp"].reported, Some(json!(49)));
}

#[test]
fn many_devices_are_served_a_few_at_a_time_and_answers_come_last() {
    let mut b = Bench::new();
    b.retain("mapper/modbus/hello", &hello("modbus"));
    b.retain("obj/devicemodel/default/thermostat", &model());
    for n in 0..300 {
        let mut d = device(&format!("u{n}"), "modbus", json!("21"));
        d["obj"]["metadata"]["name"] = json!(format!("d{n}"));
        b.retain_quietly(&format!("obj/device/default/d{n}"), &d);
    }
    b.send_raw("$hw/events/node/gw/membership/get", b"{}");
    let mut rounds = 0;
    while b.core.has_more() {
        assert!(b.taken("membership/get/result").is_empty());
        b.flush_only(usize::MAX);
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    let came = b.taken("membership/updated");
    assert_eq!(
        came[0]["added_devices"].as_array().unwrap().len(),
        300,
        "one message"
    );
    let members = b.taken("membership/get/result").remove(0);
    assert_eq!(members["devices"].as_array().unwrap().len(), 300);
    assert_eq!(b.want("modbus", "d299").props["temp"].value, json!(21));
}

#[test]
fn want_changes_only_with_a_desired_value() {
    let mut b = served(json!("21"));
    let want = b.want("modbus", "d1");
    b.send("dev/modbus/default/d1/report", &report(1, json!(5)));
    b.retain("obj/device/default/d1", &device("u1", "modbus", json!(21)));
    b.retain(
        "mapper/modbus/hello",
        &json!({"protocol": "modbus", "version": "2"}),
    );
    b.reconnect();
    b.restart();
    assert_eq!(b.want("modbus", "d1"), want);
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("22")),
    );
    let new = b.want("modbus", "d1");
    assert_ne!(new.r#gen, want.r#gen);
    assert_eq!(new.props["temp"].value, json!(22));
}

#[test]
fn a_restart_continues_the_count_of_generations() {
    let mut b = served(json!("21"));
    let before = b.desired("d1").r#gen;
    b.restart();
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("22")),
    );
    let after = b.desired("d1").r#gen;
    assert_eq!(after.store, before.store);
    assert_eq!(after.n, before.n + 1);
}

#[test]
fn what_is_wrong_with_a_device_is_said_in_its_condition_and_in_an_event() {
    let mut b = Bench::new();
    b.retain("mapper/modbus/hello", &hello("modbus"));
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("21")),
    );
    let says = b.condition("d1", "Configured");
    assert!(says.starts_with("False/NoModel: spec.deviceModelRef.name \"thermostat\": there is no such DeviceModel in namespace \"default\""), "{says}");
    assert!(b.events()[0].starts_with("Warning NoModel spec.deviceModelRef.name"));
    b.flush();
    assert_eq!(b.events(), [""; 0], "told once");

    b.retain("obj/devicemodel/default/thermostat", &model());
    assert!(b.condition("d1", "Configured").starts_with("True/Assigned"));

    for (desired, reason, says) in [
        (
            json!("101"),
            "OutOfRange",
            "property \"temp\": desired value 101 is out of range: allowed are 0 to 100",
        ),
        (
            json!("warm"),
            "WrongType",
            "property \"temp\": desired value \"warm\" is not a whole number",
        ),
    ] {
        b.retain("obj/device/default/d1", &device("u1", "modbus", desired));
        let found = b.condition("d1", "DesiredAccepted");
        assert!(
            found.starts_with(&format!("False/{reason}: {says}")),
            "{found}"
        );
        assert!(b.events()[0].starts_with(&format!("Warning {reason} {says}")));
        assert_eq!(
            b.want("modbus", "d1").props["temp"].value,
            json!(21),
            "the last good one stands"
        );
        let synced = b.condition("d1", "Synced");
        assert!(
            synced.starts_with("False/DesiredRefused") && synced.contains(says),
            "{synced}"
        );
    }

    let mut odd = device("u1", "modbus", json!("21"));
    odd["obj"]["spec"]["properties"] = json!([
        {"name": "speed"}, {"name": "fw", "desired": {"value": "2"}}]);
    b.retain("obj/device/default/d1", &odd);
    assert_eq!(
        b.condition("d1", "Configured"),
        "False/PropertyNotInModel: property \"speed\" is not in model \"thermostat\"; its properties are temp, mode, fw"
    );
    assert!(
        b.condition("d1", "DesiredAccepted")
            .starts_with("False/ReadOnly: property \"fw\" is ReadOnly")
    );

    odd["obj"]["spec"]["properties"] = json!("none");
    b.retain("obj/device/default/d1", &odd);
    let says = b.condition("d1", "Configured");
    assert!(
        says.starts_with(
            "False/Unreadable: the Device cannot be read: spec.properties should be an array"
        ),
        "{says}"
    );
    assert!(
        b.get::<Value>("dev/modbus/default/d1/config").is_some(),
        "the last readable one stays in force"
    );
}

#[test]
fn a_model_that_may_still_come_is_waited_for() {
    let mut b = Bench::bare();
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("21")),
    );
    assert!(
        b.condition("d1", "Configured")
            .starts_with("Unknown/WaitingForModel")
    );
    assert_eq!(b.events(), [""; 0]);
    b.mirror_complete();
    assert!(b.condition("d1", "Configured").starts_with("False/NoModel"));
}

#[test]
fn a_protocol_that_nobody_serves_is_said_after_a_while() {
    let mut b = Bench::new();
    b.retain("mapper/modbus/hello", &hello("modbus"));
    b.retain("obj/devicemodel/default/thermostat", &model());
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbuz", json!("21")),
    );
    assert!(
        b.condition("d1", "Configured")
            .starts_with("Unknown/WaitingForMapper")
    );
    assert_eq!(b.events(), [""; 0]);
    assert_eq!(b.core.next_due(), Some(START + 10_000));
    b.pass(10_000);
    let says = "no mapper on this node serves protocol \"modbuz\" (served here: modbus; protocol \"mqtt\" needs none)";
    assert_eq!(
        b.condition("d1", "Configured"),
        format!("False/NoMapper: {says}")
    );
    assert_eq!(b.events(), [format!("Warning NoMapper {says}")]);
    assert_eq!(b.core.next_due(), None);
    b.retain("mapper/late/hello", &hello("modbuz"));
    assert!(
        b.condition("d1", "Configured")
            .starts_with("True/Assigned: mapper \"late\"")
    );
}

#[test]
fn deleting_a_device_clears_its_topics() {
    let mut b = served(json!("21"));
    b.retain("obj/device/default/d1", &Value::Null);
    let left: Vec<_> = b.retained.keys().filter(|t| t.contains("/d1")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_device_deleted_while_we_were_away_is_cleared_if_the_mirror_was_complete() {
    let mut b = served(json!("21"));
    b.retained.remove(&e("obj/device/default/d1"));
    let marks: Vec<_> = ["device", "devicemodel"]
        .map(|k| e(&format!("sync/{k}")))
        .into();
    let kept: Vec<_> = marks
        .iter()
        .map(|m| b.retained.remove(m).unwrap())
        .collect();
    b.restart();
    b.reconnect();
    assert!(
        b.get::<Value>("dev/modbus/default/d1/config").is_some(),
        "nobody deletes what it cannot find"
    );
    assert_eq!(b.want("modbus", "d1").props["temp"].value, json!(21));
    for (mark, payload) in marks.into_iter().zip(kept) {
        b.retained.insert(mark, payload);
    }
    b.restart();
    let left: Vec<_> = b.retained.keys().filter(|t| t.contains("/d1")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_device_missing_after_a_reconnect_is_gone_if_the_mirror_was_complete() {
    let mut b = served(json!("21"));
    b.retained.remove(&e("obj/device/default/d1"));
    b.reconnect();
    assert!(b.get::<Value>("twin/default/d1").is_none());
}

#[test]
fn a_bus_that_lost_its_store_gets_our_documents_again() {
    let mut b = served(json!("21"));
    let before = b.retained.clone();
    b.retained.retain(|topic, _| {
        topic.contains("/obj/") || topic.contains("/sync/") || topic.contains("/mapper/")
    });
    b.reconnect();
    assert_eq!(b.retained, before);
}

#[test]
fn another_uid_starts_anew() {
    let mut b = served(json!("21"));
    b.send(
        "twin/default/d1/set",
        &json!({"id": "w", "props": {"mode": "eco"}}),
    );
    b.send("dev/modbus/default/d1/report", &report(1, json!(21)));
    b.retain(
        "obj/device/default/d1",
        &device("u2", "modbus", json!("30")),
    );
    let twin = b.twin("d1");
    assert_eq!(twin.uid, "u2");
    assert_eq!(twin.props["temp"].reported, None);
    assert_eq!(twin.props["mode"].desired, None);
    assert_eq!(b.desired("d1").uid, "u2");
    let want = b.want("modbus", "d1");
    assert_eq!(want.props.len(), 1);
    assert_eq!(
        b.get::<DeviceConfig>("dev/modbus/default/d1/config")
            .unwrap()
            .uid,
        "u2"
    );
}

#[test]
fn a_mapper_that_is_down_leaves_its_devices_unknown() {
    let mut b = served(json!("21"));
    b.retain(
        "dev/modbus/default/d1/state",
        &json!({"state": "online", "at": "x"}),
    );
    b.retain(
        "sys/modbus/health",
        &json!({"state": "down", "why": "it was killed"}),
    );
    let twin = b.twin("d1");
    assert_eq!(twin.state, DeviceUp::Unknown);
    assert_eq!(
        twin.why.as_deref(),
        Some("mapper \"modbus\" is down: it was killed")
    );
    b.retain("sys/modbus/health", &json!({"state": "up"}));
    assert_eq!(b.twin("d1").state, DeviceUp::Online);
}

#[test]
fn why_a_device_does_not_answer_is_a_condition_and_an_event() {
    let mut b = served(json!("21"));
    assert!(
        b.condition("d1", "Online")
            .starts_with("Unknown/Unknown: mapper \"modbus\" has not said yet")
    );
    let why = "property \"temp\", visitors.configData: register is missing";
    b.retain(
        "dev/modbus/default/d1/state",
        &json!({"state": "unhealthy", "why": why, "at": "x"}),
    );
    assert_eq!(
        b.condition("d1", "Online"),
        format!("False/Unhealthy: {why}")
    );
    assert_eq!(b.events(), [format!("Warning Unhealthy {why}")]);
}

#[test]
fn a_mapper_s_absence_after_a_broker_s_restart_moves_nothing_at_first() {
    let mut b = served(json!("21"));
    b.retain("mapper/other/hello", &hello("modbus"));
    b.retained.remove(&e("mapper/modbus/hello"));
    b.reconnect();
    assert_eq!(b.twin("d1").mapper.as_deref(), Some("modbus"));
    b.pass(10_000);
    assert_eq!(b.twin("d1").mapper.as_deref(), Some("other"));
    assert!(
        b.get::<Value>("dev/modbus/default/d1/config").is_none(),
        "the old one is cleared"
    );
    assert_eq!(b.want("other", "d1").props["temp"].value, json!(21));
}

#[test]
fn a_crash_while_a_device_changes_hands_leaves_nothing_behind() {
    for n in 0..8 {
        let mut b = served(json!("21"));
        b.retain("mapper/other/hello", &hello("opcua"));
        b.retain_quietly("obj/device/default/d1", &device("u1", "opcua", json!("21")));
        b.flush_only(n);
        b.restart();
        let configs: Vec<_> = b
            .retained
            .keys()
            .filter(|t| t.ends_with("/config") || t.ends_with("/want"))
            .collect();
        assert_eq!(
            configs,
            [
                &e("dev/other/default/d1/config"),
                &e("dev/other/default/d1/want")
            ],
            "after {n}"
        );
    }
}

#[test]
fn a_refused_write_is_told_and_forgotten_with_the_next_wish() {
    let mut b = served(json!("21"));
    let generation = b.want("modbus", "d1").props["temp"].r#gen.clone();
    let mut refused = report(1, json!(5));
    refused["props"]["temp"]["outcome"] = json!("refused");
    refused["props"]["temp"]["why"] = json!("illegal data value (0x03)");
    refused["props"]["temp"]["gen_seen"] = json!(generation);
    b.send("dev/modbus/default/d1/report", &refused);
    b.send("dev/modbus/default/d1/report", &refused);
    assert_eq!(
        b.events(),
        [
            "Warning WriteRefused property \"temp\": desired 21 was not reached (write refused): illegal data value (0x03); it is 5"
        ]
    );
    let says = "False/WriteRefused: \"temp\" should be 21 and is 5 (write refused: illegal data value (0x03))";
    assert_eq!(b.condition("d1", "Synced"), says);
    b.send("dev/modbus/default/d1/report", &report(2, json!(6)));
    assert!(
        b.condition("d1", "Synced")
            .starts_with("False/WriteRefused"),
        "a later reading does not hide it"
    );
    b.restart();
    assert!(
        b.condition("d1", "Synced")
            .starts_with("False/WriteRefused"),
        "a restart neither"
    );
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("22")),
    );
    assert!(b.condition("d1", "Synced").starts_with("False/Pending"));
}

#[test]
fn a_value_that_could_not_be_read_is_marked() {
    let mut b = served(json!("21"));
    b.send("dev/modbus/default/d1/report", &report(1, json!(21)));
    let mut bad = report(2, Value::Null);
    bad["props"]["temp"]["quality"] = json!("bad");
    bad["props"]["temp"]["cause"] = json!("commFailure");
    b.send("dev/modbus/default/d1/report", &bad);
    let temp = b.twin("d1").props["temp"].clone();
    assert_eq!(
        (temp.reported, temp.quality, temp.cause.as_deref()),
        (Some(json!(21)), Some(Quality::Bad), Some("commFailure"))
    );
}

#[test]
fn reports_of_a_mapper_that_does_not_serve_the_device_are_not_taken() {
    let mut b = served(json!("21"));
    b.send("dev/other/default/d1/report", &report(1, json!(99)));
    assert_eq!(b.twin("d1").props["temp"].reported, None);
}

#[test]
fn a_model_that_goes_leaves_the_device_served_as_it_was() {
    let mut b = served(json!("21"));
    b.retain("obj/devicemodel/default/thermostat", &Value::Null);
    assert!(b.condition("d1", "Configured").starts_with("False/NoModel"));
    assert!(b.get::<Value>("dev/modbus/default/d1/config").is_some());
    b.send("dev/modbus/default/d1/report", &report(1, json!(21)));
    assert_eq!(b.twin("d1").props["temp"].reported, Some(json!(21)));
    b.restart();
    assert_eq!(b.twin("d1").props["temp"].reported, Some(json!(21)));
    assert!(b.get::<Value>("dev/modbus/default/d1/config").is_some());
}

#[test]
fn what_the_broker_refused_is_put_again() {
    let mut b = served(json!("21"));
    b.puts.clear();
    b.core.refused(&e("twin/default/d1"));
    b.flush();
    assert!(
        b.puts.iter().any(|(t, _)| t.ends_with("twin/default/d1")),
        "{:?}",
        b.puts
    );
}
