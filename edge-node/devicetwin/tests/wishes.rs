//! Wishes and calls from this node, over the twin topics and over KubeEdge's `$hw` topics.

mod bench;

use bench::*;
use edgebus_bus::payload::{DeviceUp, Quality, Source};
use serde_json::{Value, json};

const HW: &str = "$hw/events/device/d1";
const HW_NS: &str = "$hw/events/device/default/d1";

#[test]
fn a_local_wish_reaches_the_mapper_until_the_api_changes_its_mind() {
    let mut b = served(json!("21"));
    b.send(
        "twin/default/d1/set",
        &json!({"id": "w1", "props": {"temp": 30, "mode": "eco"}}),
    );
    let done = b.taken("set/done");
    assert_eq!(
        (&done[0]["id"], &done[0]["ok"]),
        (&json!("w1"), &json!(true))
    );
    assert_eq!(b.want("modbus", "d1").props["temp"].value, json!(30));
    assert_eq!(b.desired("d1").props["temp"].source, Source::Local);
    assert!(b.twin("d1").props["temp"].local);
    assert_eq!(
        b.condition("d1", "LocalOverride"),
        "True/SetOnTheNode: \"mode\" is \"eco\" by a client on the node; \"temp\" is 30 by a client on the node; the API says \"21\""
    );
    b.restart();
    assert_eq!(
        b.want("modbus", "d1").props["temp"].value,
        json!(30),
        "a restart keeps it"
    );
    b.retain(
        "obj/device/default/d1",
        &device("u1", "modbus", json!("22")),
    );
    assert_eq!(b.want("modbus", "d1").props["temp"].value, json!(22));
    assert_eq!(
        b.events(),
        [
            "Warning OverrodeLocal property \"temp\": the API's new desired value 22 replaced 30, which a client on the node had set"
        ]
    );
    b.send(
        "twin/default/d1/set",
        &json!({"id": "w2", "props": {"mode": null}}),
    );
    assert_eq!(b.condition("d1", "LocalOverride"), "none");
}

#[test]
fn a_wish_is_taken_whole_or_not_at_all() {
    let mut b = served(json!("21"));
    b.send(
        "twin/default/d1/set",
        &json!({"id": "w", "props": {"mode": "eco", "temp": 101, "fw": "2", "zz": 1}}),
    );
    let done = b.taken("set/done").remove(0);
    assert_eq!(done["ok"], json!(false));
    for (name, says) in [
        ("temp", "0 to 100"),
        ("fw", "ReadOnly"),
        ("zz", "its properties are"),
    ] {
        assert!(
            done["refused"][name].as_str().unwrap().contains(says),
            "{done}"
        );
    }
    assert!(done["refused"].get("mode").is_none());
    assert_eq!(b.twin("d1").props["mode"].desired, None);
}

#[test]
fn a_wish_may_depend_on_the_generation() {
    let mut b = served(json!("21"));
    let generation = b.desired("d1").r#gen;
    b.send(
        "twin/default/d1/set",
        &json!({"id": "a", "props": {"temp": 1}, "if_gen": generation}),
    );
    b.send(
        "twin/default/d1/set",
        &json!({"id": "b", "props": {"temp": 2}, "if_gen": generation}),
    );
    let done = b.taken("set/done");
    assert_eq!(
        (&done[0]["ok"], &done[1]["ok"]),
        (&json!(true), &json!(false))
    );
    assert!(
        done[1]["why"].as_str().unwrap().contains("the twin is at"),
        "{done:?}"
    );
    assert_eq!(b.want("modbus", "d1").props["temp"].value, json!(1));
}

#[test]
fn the_same_wish_twice_is_one_wish() {
    let mut b = served(json!("21"));
    let first = json!({"id": "a", "props": {"temp": 1}});
    b.send("twin/default/d1/set", &first);
    b.send(
        "twin/default/d1/set",
        &json!({"id": "b", "props": {"temp": 2}}),
    );
    let want = b.want("modbus", "d1");
    b.restart();
    b.send("twin/default/d1/set", &first);
    assert_eq!(b.want("modbus", "d1"), want);
    assert_eq!(b.taken("set/done").len(), 3, "but each is answered");
}

#[test]
fn wishes_that_make_no_sense_are_answered() {
    let mut b = served(json!("21"));
    b.send(
        "twin/default/nobody/set",
        &json!({"id": "a", "props": {"temp": 1}}),
    );
    b.send("twin/default/d1/set", &json!({"id": "b", "props": {}}));
    b.send_raw("twin/default/d1/set", b"{");
    b.flush();
    let done = b.taken("set/done");
    for (n, says) in [
        "there is no device default/nobody",
        "names 0 properties",
        "not as it should be",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(done[n]["ok"], json!(false));
        assert!(done[n]["why"].as_str().unwrap().contains(says), "{done:?}");
    }
    b.send_raw("dev/modbus/default/d1/report", b"{");
    b.flush();
    assert!(b.events()[0].starts_with("Warning BadMapperMessage mapper \"modbus\" said on"));
}

#[test]
fn a_call_goes_to_the_mapper_and_its_outcome_back() {
    let mut b = served(json!("21"));
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c1", "method": "reboot", "args": {}}),
    );
    assert_eq!(b.taken("dev/modbus/default/d1/call")[0]["id"], json!("c1"));
    b.send(
        "dev/modbus/default/d1/call/done",
        &json!({"id": "c1", "status": "ok"}),
    );
    assert_eq!(
        b.taken("twin/default/d1/call/done")[0]["status"],
        json!("ok")
    );
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c2", "method": "x", "deadline": "2020-01-01T00:00:00Z"}),
    );
    let done = b.taken("twin/default/d1/call/done").remove(0);
    assert!(
        done["reason"]
            .as_str()
            .unwrap()
            .contains("is over; it was not begun"),
        "{done}"
    );
    b.retain("sys/modbus/health", &json!({"state": "down"}));
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c3", "method": "reboot"}),
    );
    let done = b.taken("twin/default/d1/call/done").remove(0);
    assert_eq!(done["status"], json!("refused"));
}

#[test]
fn a_method_of_the_device_writes_its_properties() {
    let mut b = Bench::new();
    let mut d = device("u1", "mqtt", json!("21"));
    d["obj"]["spec"]["methods"] = json!([{"name": "setTemp", "propertyNames": ["temp"]}]);
    b.retain("obj/devicemodel/default/thermostat", &model());
    b.retain("obj/device/default/d1", &d);
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c1", "method": "setTemp", "args": {"temp": 33}}),
    );
    assert_eq!(b.taken("call/done")[0]["status"], json!("ok"));
    assert_eq!(b.twin("d1").props["temp"].desired, Some(json!(33)));
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c2", "method": "setTemp", "args": {"mode": "eco"}}),
    );
    assert!(
        b.taken("call/done")[0]["reason"]
            .as_str()
            .unwrap()
            .contains("it writes temp")
    );
    b.send(
        "twin/default/d1/call",
        &json!({"id": "c3", "method": "fly"}),
    );
    assert!(
        b.taken("call/done")[0]["reason"]
            .as_str()
            .unwrap()
            .contains("its spec.methods are setTemp")
    );
}

#[test]
fn kubectl_drives_a_third_party_client_from_the_first_value_on() {
    let mut b = on_the_bus(json!("21"));
    let first = b.taken("default/d1/twin/update/delta");
    assert_eq!(first[0]["delta"], json!({"temp": "21"}));
    assert_eq!(first[0]["twin"]["temp"]["expected"]["value"], json!("21"));
    assert_eq!(
        b.taken("device/d1/twin/update/delta").len(),
        1,
        "and under its short name"
    );
    assert!(b.condition("d1", "Configured").starts_with("True/OnTheBus"));

    b.send(&format!("{HW}/twin/update"), &json!({"event_id": "e1", "timestamp": 1, "twin": {
        "temp": {"actual": {"value": "21", "metadata": {"timestamp": START + 5}}, "metadata": {"type": "int"}}}}));
    let result = b.taken("device/d1/twin/update/result").remove(0);
    assert_eq!(result["event_id"], json!("e1"));
    assert_eq!(result["twin"]["temp"]["actual"]["value"], json!("21"));
    assert_eq!(
        b.taken("default/d1/twin/update/result").len(),
        0,
        "only on the form that asked"
    );
    assert_eq!(
        b.taken("twin/update/delta").len(),
        0,
        "nothing differs any more"
    );
    let document = b.taken("default/d1/twin/update/document").remove(0);
    assert_eq!(document["twin"]["temp"]["last"].get("actual"), None);
    assert_eq!(
        document["twin"]["temp"]["current"]["actual"]["value"],
        json!("21")
    );
    let temp = b.twin("d1").props["temp"].clone();
    assert_eq!((temp.reported, temp.synced), (Some(json!(21)), true));
    assert_eq!(temp.at.as_deref(), Some("2026-01-01T00:00:00.005Z"));

    b.retain("obj/device/default/d1", &device("u1", "mqtt", json!("22")));
    let delta = b.taken("default/d1/twin/update/delta").remove(0);
    assert_eq!(delta["delta"], json!({"temp": "22"}));
    assert_eq!(delta["twin"]["temp"]["actual"]["value"], json!("21"));
    b.sent.clear();
    b.restart();
    assert_eq!(
        b.taken("twin/update/delta").len(),
        0,
        "a restart is no change"
    );
}

#[test]
fn a_third_party_may_wish_as_well_and_is_told_the_difference() {
    let mut b = on_the_bus(Value::Null);
    b.send(
        &format!("{HW_NS}/twin/update"),
        &json!({"event_id": "e1", "twin": {
        "mode": {"expected": {"value": "eco ✓"}}, "temp": {"actual": {"value": 150}}}}),
    );
    let delta = b.taken("default/d1/twin/update/delta").remove(0);
    assert_eq!(
        (&delta["event_id"], &delta["delta"]),
        (&json!("e1"), &json!({"mode": "eco ✓"}))
    );
    assert_eq!(b.desired("d1").props["mode"].source, Source::Local);
    let temp = b.twin("d1").props["temp"].clone();
    assert_eq!(
        (temp.reported, temp.quality),
        (Some(json!(150)), Some(Quality::Uncertain))
    );
    assert_eq!(
        temp.cause.as_deref(),
        Some("150 is out of range: allowed are 0 to 100")
    );

    b.send(
        &format!("{HW_NS}/twin/update"),
        &json!({"twin": {"mode": null, "temp": null, "never": null}}),
    );
    assert_eq!(b.taken("default/d1/twin/update/result").len(), 2);
    let twin = b.twin("d1");
    assert_eq!(
        (
            twin.props["mode"].desired.clone(),
            twin.props["temp"].reported.clone()
        ),
        (None, None)
    );
}

#[test]
fn the_twin_is_told_on_request_in_both_forms() {
    let mut b = on_the_bus(json!("21"));
    b.send_raw(&format!("{HW}/twin/get"), b"");
    b.send(&format!("{HW_NS}/twin/get"), &json!({"event_id": "g"}));
    let short = b.taken("device/d1/twin/get/result").remove(0);
    let long = b.taken("default/d1/twin/get/result").remove(0);
    assert_eq!(short["twin"], long["twin"]);
    assert_eq!(long["event_id"], json!("g"));
    assert_eq!(
        long["twin"]["temp"],
        json!({"expected": {"value": "21", "metadata": {"timestamp": START}}, "optional": true, "metadata": {"type": "int"}})
    );
}

#[test]
fn wrong_requests_are_answered_where_their_author_looks() {
    let mut b = on_the_bus(json!("21"));
    for (topic, payload, code, says) in [
        ("d1/twin/update", "{", 400, "'}' is missing"),
        (
            "d1/twin/update",
            r#"{"event_id":"e"}"#,
            400,
            "names no property",
        ),
        (
            "d1/twin/update",
            r#"{"twin":{"temp":{"actual":{}}}}"#,
            400,
            "neither",
        ),
        (
            "d1/twin/update",
            r#"{"twin":{"temp":{"actual":{"value":"hot"}}}}"#,
            400,
            "\"hot\" is not a whole number",
        ),
        (
            "d1/twin/update",
            r#"{"twin":{"temp":{"expected":{"value":"101"}}}}"#,
            400,
            "0 to 100",
        ),
        (
            "d1/twin/update",
            r#"{"twin":{"fw":{"expected":{"value":"2"}}}}"#,
            400,
            "ReadOnly",
        ),
        (
            "d1/twin/update",
            r#"{"twin":{"zz":{"actual":{"value":"2"}}}}"#,
            400,
            "is not in model",
        ),
        (
            "nobody/twin/update",
            r#"{"twin":{"t":{"actual":{"value":"2"}}}}"#,
            404,
            "no device default/nobody",
        ),
        ("plant/d1/twin/get", "{}", 404, "no device plant/d1"),
        ("Pump/twin/get", "{}", 404, "\"Pump\" is not valid"),
        (
            "d1/state/update",
            r#"{"state":"sleepy"}"#,
            400,
            "\"sleepy\" is not one of online",
        ),
        ("d1/state/update", "5", 400, "should be an object"),
    ] {
        b.sent.clear();
        b.send_raw(&format!("$hw/events/device/{topic}"), payload.as_bytes());
        b.flush();
        let (to, refusal) = b.sent.last().unwrap().clone();
        assert_eq!(to, format!("$hw/events/device/{topic}/result"));
        assert_eq!(refusal["code"], json!(code), "{topic} {payload}: {refusal}");
        let reason = refusal["reason"].as_str().unwrap();
        assert!(reason.contains(says), "{topic} {payload}: {reason}");
    }
    assert_eq!(b.twin("d1").props["temp"].reported, None);
}

#[test]
fn a_client_says_whether_its_device_is_online_and_a_mapper_s_device_is_the_mapper_s() {
    let mut b = on_the_bus(json!("21"));
    b.send(
        &format!("{HW}/state/update"),
        &json!({"event_id": "s", "state": "Online"}),
    );
    let result = b.taken("state/update/result").remove(0);
    assert_eq!(
        (&result["device"]["name"], &result["device"]["state"]),
        (&json!("d1"), &json!("online"))
    );
    assert_eq!(b.twin("d1").state, DeviceUp::Online);
    b.restart();
    assert_eq!(b.twin("d1").state, DeviceUp::Online, "a restart keeps it");

    let mut b = served(json!("21"));
    b.send(&format!("{HW}/state/update"), &json!({"state": "online"}));
    let refusal = b.taken("state/update/result").remove(0);
    assert!(
        refusal["reason"]
            .as_str()
            .unwrap()
            .starts_with("mapper \"modbus\" says whether"),
        "{refusal}"
    );
}

#[test]
fn a_node_s_devices_are_told_and_their_coming_and_going() {
    let mut b = on_the_bus(json!("21"));
    let came = b.taken("$hw/events/node/gw/membership/updated").remove(0);
    assert_eq!(came["added_devices"][0]["id"], json!("default/d1"));
    b.send(
        "$hw/events/node/gw/membership/get",
        &json!({"event_id": "m"}),
    );
    let members = b.taken("membership/get/result").remove(0);
    assert_eq!(members["devices"][0]["id"], json!("default/d1"));
    b.send("$hw/events/node/other/membership/get", &json!({}));
    assert_eq!(
        b.taken("membership/get/result").remove(0)["code"],
        json!(404)
    );
    b.retain("obj/device/default/d1", &Value::Null);
    let went = b.taken("membership/updated").remove(0);
    assert_eq!(
        (&went["added_devices"], &went["removed_devices"][0]["name"]),
        (&Value::Null, &json!("d1"))
    );
}

#[test]
fn a_third_party_may_report_for_a_mapper_s_device() {
    let mut b = served(json!("21"));
    b.send(
        &format!("{HW}/twin/update"),
        &json!({"twin": {"mode": {"actual": {"value": "eco"}}}}),
    );
    assert_eq!(b.twin("d1").props["mode"].reported, Some(json!("eco")));
}
