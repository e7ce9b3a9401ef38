//! Story F: wrong input gets a clear error where its author looks; nothing panics, nothing else is
//! affected.

use edgebus_tests::field::{Modbus, Sub, mosquitto_pub};
use edgebus_tests::run::here;
use edgebus_tests::{Cloud, Node, eventually};
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;

fn model(name: &str) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: {name}, namespace: default}}
spec:
  protocol: modbus
  properties:
  - {{name: speed, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "3000"}}
"#
    )
}

fn device(name: &str, model: &str, protocol: &str, port: u16, desired: &str) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}, namespace: default}}
spec:
  deviceModelRef: {{name: {model}}}
  nodeName: gw
  protocol: {{protocolName: {protocol}, configData: {{ip: 127.0.0.1, port: {port}}}}}
  properties:
  - {{name: speed, collectCycle: 200, reportToCloud: true, desired: {{value: "{desired}"}}, visitors: {{protocolName: {protocol}, configData: {{register: HoldingRegister, offset: 1}}}}}}
"#
    )
}

/// Conditions of a device's status, as text.
fn conditions(cloud: &Cloud, device: &str) -> Result<String, String> {
    Ok(cloud.get("devicestatus", device)?["status"]["conditions"].to_string())
}

#[test]
fn wrong_devices_say_what_is_wrong_in_their_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = Modbus::tcp();
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(&model("motor"));
    cloud.apply(&device("good", "motor", "modbus", good.port, "100"));
    cloud.apply(&device("orphan", "nobody", "modbus", good.port, "1"));
    cloud.apply(&device("alien", "motor", "telepathy", good.port, "1"));
    cloud.apply(&device("fast", "motor", "modbus", good.port, "30001"));
    cloud.apply(&device("wordy", "motor", "modbus", good.port, "quick"));
    for (name, parts) in [
        ("orphan", ["nobody", "default"]),
        ("alien", ["telepathy", "mapper"]),
        ("fast", ["30001", "3000"]),
        ("wordy", ["quick", "speed"]),
    ] {
        eventually(&format!("{name} says what is wrong"), || {
            let said = conditions(&cloud, name)?;
            if parts.iter().all(|p| said.contains(p)) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
    // The API itself refuses what the schema forbids.
    let (code, said) = cloud.apply_code(&model("bad").replace("type: INT", "type: NUMBER"));
    assert!(
        code != 0 && said.contains("NUMBER") && said.contains("INT"),
        "{said}"
    );
    let (code, said) = cloud
        .apply_code(&device("typo", "motor", "modbus", 1, "1").replace("nodeName", "nodename"));
    assert!(code != 0 && said.contains("nodename"), "{said}");
    // And the good one never noticed.
    eventually("the good device runs", || match good.get(1) {
        100 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(good.writes(), [(1, 100)]);
    healthy(&node);
}

/// Every unit is up in the process it was started in, and none has panicked.
fn healthy(node: &Node) {
    let state = node.state().unwrap();
    for (name, unit) in state["units"].as_object().unwrap() {
        assert_eq!(
            unit["restarts"].as_u64().unwrap_or(0),
            0,
            "{name} was restarted: {unit}"
        );
    }
    let log = std::fs::read_to_string(node.dir.join("node.log")).unwrap_or_default();
    assert!(!log.contains("panicked at"), "{log}");
}

#[test]
fn garbage_on_every_topic_is_answered_and_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(
        &std::fs::read_to_string(here("../configs/examples/virtual.yaml"))
            .unwrap()
            .replace("nodeName: gateway", "nodeName: gw"),
    );

    let results = Sub::start(&node, "app", "$hw/#");
    let said = Sub::start(&node, "app", "edge/v1/twin/#");
    let hw = "$hw/events/device/default/nobody/twin/update";
    mosquitto_pub(&node, "app", &["-q", "1", "-t", hw, "-m", "{broken"]);
    results.expect("400 for broken JSON", |t, p| {
        t.ends_with("/result") && p.contains("400")
    });
    mosquitto_pub(
        &node,
        "app",
        &[
            "-q",
            "1",
            "-t",
            hw,
            "-m",
            r#"{"event_id":"x","timestamp":0,"twin":{"a":{"actual":{"value":"1"}}}}"#,
        ],
    );
    results.expect("404 for a device that is not there", |t, p| {
        t.ends_with("/result") && p.contains("404")
    });
    mosquitto_pub(
        &node,
        "app",
        &[
            "-q",
            "1",
            "-t",
            "edge/v1/twin/default/nobody/set",
            "-m",
            "{broken",
        ],
    );
    said.expect("an answer to a broken set", |t, p| {
        t.ends_with("/set/done") && p.contains("\"ok\":false")
    });
    // What is wrong is said in JSON's words, with its place and what it is.
    let set = "edge/v1/twin/default/nobody/set";
    let wrong = r#"{"id":"w1","props":{"speed":1},"if_gen":{"store":"s","n":"3"}}"#;
    mosquitto_pub(&node, "app", &["-q", "1", "-t", set, "-m", wrong]);
    said.expect("the place of a wrong field of a set", |t, p| {
        let said: Value = serde_json::from_str(p).unwrap_or_default();
        t.ends_with("/set/done")
            && said
                .to_string()
                .contains("if_gen.n should be a whole number")
            && said.to_string().contains("is the text")
    });
    let wrong = r#"{"event_id":"e","twin":{"t":5}}"#;
    mosquitto_pub(&node, "app", &["-q", "1", "-t", hw, "-m", wrong]);
    results.expect("the place of a wrong field of an update", |t, p| {
        t.ends_with("/result") && p.contains("twin.t should be an object")
    });
    for topic in [
        "edge/v1/twin/default/nobody/call",
        "$hw/events/device/x/state/update",
        "$hw/events/node/gw/membership/get",
        "$hw/events/device/default/x/twin/get",
    ] {
        mosquitto_pub(&node, "app", &["-q", "1", "-t", topic, "-m", "\u{1}{{{"]);
    }

    // A payload of 10 MB, and a topic whose first character is not ASCII.
    let big = dir.path().join("big");
    std::fs::write(&big, vec![b'x'; 10 << 20]).unwrap();
    // (An MQTT 5 client is told the limit in CONNACK, and mosquitto_pub then keeps silent itself.)
    let (code, said) = mosquitto_pub(
        &node,
        "app",
        &[
            "-V",
            "311",
            "-q",
            "1",
            "-t",
            "app/big",
            "-f",
            big.to_str().unwrap(),
        ],
    );
    assert!(
        code != 0 || !said.is_empty(),
        "10 MB were taken without a word"
    );
    let (code, said) = mosquitto_pub(&node, "app", &["-q", "1", "-t", "é/x", "-m", "1"]);
    assert!(
        code != 0 || said.to_lowercase().contains("not authorized"),
        "{said}"
    );
    let (code, said) = mosquitto_pub(&node, "app", &["-q", "1", "-t", "app/é", "-m", "1"]);
    assert_eq!(code, 0, "{said}");

    // A bad token, and bytes that are no MQTT at all.
    let (code, said) = mosquitto_pub(
        &node,
        "app",
        &[
            "-u", "modbus", "-P", "wrong", "-I", "modbus.", "-t", "app/x", "-m", "1",
        ],
    );
    assert!(code != 0, "{said}");
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xFF; 64],
        &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x30, 0x00],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", node.tcp_port())).unwrap();
        drop(stream.write_all(garbage));
    }
    let (code, said) = mosquitto_pub(&node, "app", &["-q", "1", "-t", "app/still", "-m", "there"]);
    assert_eq!(code, 0, "{said}");
    healthy(&node);
}

#[test]
fn a_wrong_token_and_another_nodes_name_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path());
    let gw = Node::new(dir.path(), "gw");
    let other = Node::new(dir.path(), "other");
    let token = cloud.token(Some("gw"));

    let (code, said) = other.join_code(&cloud, &token);
    assert!(
        code != 0 && said.contains("gw"),
        "a token for gw must not admit other: {said}"
    );
    let text = std::fs::read_to_string(&token).unwrap();
    let bad = dir.path().join("bad");
    std::fs::write(
        &bad,
        text.trim().rsplit_once('.').unwrap().0.to_owned() + ".00112233445566778899aabbccddeeff",
    )
    .unwrap();
    let (code, said) = gw.join_code(&cloud, &bad);
    assert!(code != 0 && said.contains("token"), "{said}");
    std::fs::write(&bad, "nonsense").unwrap();
    let (code, said) = gw.join_code(&cloud, &bad);
    assert_eq!(code, 64, "{said}");
    // The CA's hash is part of the token: another cloud cannot stand in.
    let mut parts: Vec<String> = text.trim().split('.').map(str::to_owned).collect();
    parts[1] = "0".repeat(64);
    std::fs::write(&bad, parts.join(".")).unwrap();
    let (code, said) = gw.join_code(&cloud, &bad);
    assert!(code != 0 && said.contains("hash"), "{said}");

    let (code, said) = gw.join_code(&cloud, &token);
    assert_eq!(code, 0, "{said}");
    let (code, said) = other.join_code(&cloud, &token);
    assert!(code != 0, "a token that works once worked twice: {said}");
}
