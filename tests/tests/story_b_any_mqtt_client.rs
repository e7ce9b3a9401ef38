//! Story B: a third-party client with nothing but mosquitto's tools, on KubeEdge's `$hw` topics, is
//! driven by kubectl and reports back to it.

use edgebus_tests::field::{Sub, mosquitto_pub};
use edgebus_tests::{Cloud, Node, eventually};

const LAMP: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: lamp, namespace: default}
spec:
  protocol: mqtt
  properties:
  - {name: brightness, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "100"}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: lamp-1, namespace: default}
spec:
  deviceModelRef: {name: lamp}
  nodeName: gw
  protocol: {protocolName: mqtt, configData: {}}
  properties:
  - {name: brightness, reportToCloud: true, desired: {value: "30"}}
"#;

#[test]
fn a_mosquitto_client_is_driven_by_kubectl_and_reports_back() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    let device = "$hw/events/device/default/lamp-1";
    let delta = Sub::start(&node, "app", &format!("{device}/twin/update/delta"));
    let results = Sub::start(&node, "app", "$hw/events/device/+/+/twin/update/result");
    let documents = Sub::start(&node, "app", &format!("{device}/twin/update/document"));

    cloud.apply(LAMP);
    // KubeEdge v1beta1 never tells an MQTT client what kubectl wants: the first value included.
    let (_, first) = delta.expect("the first desired value", |_, p| {
        p.contains(r#""brightness":"30""#)
    });
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["delta"]["brightness"], "30");
    assert_eq!(first["twin"]["brightness"]["expected"]["value"], "30");

    let report = |value: &str| {
        let payload = format!(
            r#"{{"event_id":"e-{value}","timestamp":0,"twin":{{"brightness":{{"actual":{{"value":"{value}"}}}}}}}}"#
        );
        let (code, said) = mosquitto_pub(
            &node,
            "app",
            &[
                "-q",
                "1",
                "-t",
                &format!("{device}/twin/update"),
                "-m",
                &payload,
            ],
        );
        assert_eq!(code, 0, "{said}");
    };
    report("30");
    results.expect("the result of that update", |_, p| {
        p.contains("e-30") && !p.contains("\"code\"")
    });
    documents.expect("the document", |_, p| {
        p.contains(r#""last""#) && p.contains(r#""current""#)
    });
    eventually("kubectl sees what the lamp reported", || {
        match cloud.reported("lamp-1", "brightness")?.as_str() {
            "30" => Ok(()),
            other => Err(other.to_owned()),
        }
    });

    cloud.desire("lamp-1", "brightness", "80");
    delta.expect("the change that kubectl made", |_, p| {
        p.contains(r#""delta":{"brightness":"80"}"#)
    });
    report("80");
    eventually("and back", || {
        match cloud.reported("lamp-1", "brightness")?.as_str() {
            "80" => Ok(()),
            other => Err(other.to_owned()),
        }
    });

    let got = Sub::start(&node, "app", &format!("{device}/twin/get/result"));
    let ask = [
        String::from("-t"),
        format!("{device}/twin/get"),
        "-m".into(),
        r#"{"event_id":"g1","timestamp":0}"#.into(),
    ];
    mosquitto_pub(&node, "app", &ask.each_ref().map(String::as_str));
    let (_, twin) = got.expect("the twin", |_, p| p.contains("g1"));
    let twin: serde_json::Value = serde_json::from_str(&twin).unwrap();
    assert_eq!(twin["twin"]["brightness"]["actual"]["value"], "80");

    // Both spellings of the id are served, each on the form that asked.
    let unknown = Sub::start(&node, "app", "$hw/events/device/nobody/twin/get/result");
    mosquitto_pub(
        &node,
        "app",
        &[
            "-t",
            "$hw/events/device/nobody/twin/get",
            "-m",
            r#"{"event_id":"g2","timestamp":0}"#,
        ],
    );
    unknown.expect("a 404 for an unknown device", |_, p| {
        p.contains("g2") && p.contains("404")
    });
}
