//! Story A: `kubectl` drives a real Modbus device through the bus, and back.

use edgebus_tests::field::{Modbus, Sub};
use edgebus_tests::{Cloud, Node, eventually};
use std::time::Duration;

/// KubeEdge's own spellings: capitals, quoted numbers, cycles in ms and in ns.
fn manifests(port: u16) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: boiler, namespace: default}}
spec:
  protocol: modbus
  properties:
  - {{name: target, description: wanted temperature, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "200", unit: C}}
  - {{name: actual, type: INT, accessMode: ReadOnly}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: boiler-1, namespace: default}}
spec:
  deviceModelRef: {{name: boiler}}
  nodeName: gw
  protocol:
    protocolName: modbus
    configData: {{communicateMode: TCP, ip: 127.0.0.1, port: "{port}", slaveID: 1}}
  properties:
  - name: target
    collectCycle: 200
    reportCycle: 1000
    reportToCloud: true
    desired: {{value: "40"}}
    visitors:
      protocolName: modbus
      configData: {{Register: HoldingRegister, Offset: "2", Limit: "1", Scale: "1.0", IsSwap: "false", IsRegisterSwap: "false"}}
  - name: actual
    collectCycle: 200000000
    reportToCloud: true
    visitors:
      protocolName: modbus
      configData: {{register: InputRegister, offset: 3, limit: 1}}
"#
    )
}

#[test]
fn a_desired_value_reaches_the_register_and_a_register_reaches_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut boiler = Modbus::tcp();
    boiler.set(3, 21);
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    eventually("the node is Ready", || {
        let out = cloud.kubectl_code(&["get", "nodes", "gw", "--no-headers"]);
        if out.1.contains(" Ready ") {
            Ok(())
        } else {
            Err(format!("{out:?}"))
        }
    });

    cloud.apply(&manifests(boiler.port));
    eventually(
        "the first desired value is in the register",
        || match boiler.get(2) {
            40 => Ok(()),
            other => Err(other.to_string()),
        },
    );
    eventually("both values are in the DeviceStatus", || {
        match (
            cloud.reported("boiler-1", "target")?.as_str(),
            cloud.reported("boiler-1", "actual")?.as_str(),
        ) {
            ("40", "21") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("the device is online", || {
        let status = cloud.get("devicestatus", "boiler-1")?;
        if status["status"]["state"] == "online" {
            Ok(())
        } else {
            Err(status["status"].to_string())
        }
    });

    let twin = Sub::start(&node, "viewer", "edge/v1/twin/#");
    cloud.desire("boiler-1", "target", "95");
    eventually("the register follows", || match boiler.get(2) {
        95 => Ok(()),
        other => Err(other.to_string()),
    });
    let (topic, _) = twin.expect("the twin with 95 reported", |_, payload| {
        payload.contains(r#""reported":95"#)
    });
    assert_eq!(topic, "edge/v1/twin/default/boiler-1");
    boiler.set(3, 77);
    eventually(
        "a change at the device is in the DeviceStatus",
        || match cloud.reported("boiler-1", "actual")?.as_str() {
            "77" => Ok(()),
            other => Err(other.to_owned()),
        },
    );
    assert_eq!(
        boiler.writes(),
        [(2, 40), (2, 95)],
        "each desired value is written once"
    );

    let listed = cloud.kubectl(&["get", "devices"]);
    assert!(
        listed.contains("boiler-1") && listed.contains("gw") && listed.contains("modbus"),
        "{listed}"
    );

    cloud.kubectl(&["delete", "device", "boiler-1"]);
    eventually("nothing of the device is left on the bus", || {
        match node.retained("edge/v1/twin/default/boiler-1") {
            Err(e) if e.contains("nothing is retained") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("the polling has stopped", || {
        let before = boiler.reads();
        std::thread::sleep(Duration::from_millis(700));
        match boiler.reads() - before {
            0 => Ok(()),
            more => Err(format!("{more} questions in 0.7 s")),
        }
    });
    eventually("its status is gone too", || {
        match cloud.get("devicestatus", "boiler-1") {
            Err(e) if e.contains("not found") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
