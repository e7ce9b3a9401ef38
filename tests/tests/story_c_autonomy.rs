//! Story C: the link is cut and everything on the node is killed; it starts again with no cloud and
//! works. Then the cloud comes back and both sides converge, with exactly the writes they should.

use edgebus_tests::field::{Modbus, mosquitto_pub};
use edgebus_tests::{Cloud, Node, eventually};
use serde_json::Value;

fn device(name: &str, port: u16, desired: &str) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}, namespace: default}}
spec:
  deviceModelRef: {{name: motor}}
  nodeName: gw
  protocol: {{protocolName: modbus, configData: {{ip: 127.0.0.1, port: {port}}}}}
  properties:
  - {{name: speed, collectCycle: 200, reportToCloud: true, desired: {{value: "{desired}"}}, visitors: {{protocolName: modbus, configData: {{register: HoldingRegister, offset: 1}}}}}}
"#
    )
}

const MODEL: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: motor, namespace: default}
spec:
  protocol: modbus
  properties:
  - {name: speed, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "3000"}
"#;

fn config(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default, labels: {{edgebus.io/node: gw}}}}\ndata: {{v: \"{value}\"}}\n"
    )
}

fn secret(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default, labels: {{edgebus.io/node: gw}}}}\nstringData: {{v: \"{value}\"}}\n"
    )
}

fn value_of(node: &Node, name: &str) -> Result<String, String> {
    let found = node.retained(&format!("edge/v1/obj/configmap/default/{name}"))?;
    found["obj"]["data"]["v"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| found.to_string())
}

fn gone(found: Result<Value, String>) -> Result<(), String> {
    match found {
        Err(e) if e.contains("nothing is retained") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn register(motor: &mut Modbus, wanted: u16) -> Result<(), String> {
    match motor.get(1) {
        is if is == wanted => Ok(()),
        other => Err(format!("the register holds {other}")),
    }
}

#[test]
fn a_node_works_without_the_cloud_and_converges_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (Modbus::tcp(), Modbus::tcp());
    let mut cloud = Cloud::start(dir.path());
    let mut node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(MODEL);
    cloud.apply(&device("one", one.port, "100"));
    cloud.apply(&device("two", two.port, "100"));
    for name in ["kept", "changed", "deleted", "recreated"] {
        cloud.apply(&config(name, "old"));
        cloud.apply(&secret(name, "old"));
    }
    eventually("both motors run", || {
        register(&mut one, 100).and(register(&mut two, 100))
    });
    eventually("the ConfigMaps are on the bus", || {
        ["kept", "changed", "deleted", "recreated"]
            .iter()
            .try_for_each(|n| value_of(&node, n).map(drop))
    });

    // Cut, kill all, start with no cloud.
    cloud.cut();
    node.kill_all();
    node.start();
    assert_eq!(value_of(&node, "kept").unwrap(), "old");
    let before = one.reads();
    eventually("the mapper polls again", || {
        if one.reads() > before {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });
    eventually("the twin is served", || {
        let twin = node.retained("edge/v1/twin/default/one")?;
        if twin["props"]["speed"]["reported"] == 100 && twin["state"] == "online" {
            Ok(())
        } else {
            Err(twin.to_string())
        }
    });
    assert_eq!(one.writes(), [(1, 100)], "a restart repeats no write");

    // Changes on both sides while cut.
    cloud.apply(&config("changed", "new"));
    cloud.kubectl(&["delete", "configmap", "deleted"]);
    cloud.kubectl(&["delete", "configmap", "recreated"]);
    cloud.apply(&config("recreated", "second life"));
    cloud.apply(&config("created", "new"));
    cloud.apply(&secret("changed", "new"));
    cloud.kubectl(&["delete", "secret", "deleted"]);
    cloud.desire("one", "speed", "300");
    cloud.kubectl(&["delete", "device", "two"]);
    let mut three = Modbus::tcp();
    cloud.apply(&device("three", three.port, "700"));
    let set = r#"{"id":"w1","props":{"speed":200}}"#;
    let (code, said) = mosquitto_pub(
        &node,
        "app",
        &["-q", "1", "-t", "edge/v1/twin/default/one/set", "-m", set],
    );
    assert_eq!(code, 0, "{said}");
    eventually("the local wish is obeyed without a cloud", || {
        register(&mut one, 200)
    });
    node.kill_unit("devicetwin");
    node.kill_unit("modbus");

    // The cloud returns.
    cloud.connect();
    eventually("the API's newer wish wins over the local one", || {
        register(&mut one, 300)
    });
    eventually("the new device runs", || register(&mut three, 700));
    eventually("ConfigMaps are as in the cloud", || {
        let seen = ["kept", "changed", "recreated", "created"]
            .map(|n| value_of(&node, n).unwrap_or_default());
        if seen == ["old", "new", "second life", "new"] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    eventually("what was deleted is gone", || {
        gone(node.retained("edge/v1/obj/configmap/default/deleted"))?;
        gone(node.retained("edge/v1/obj/device/default/two"))?;
        gone(node.retained("edge/v1/twin/default/two"))
    });
    eventually("the statuses follow", || {
        match (
            cloud.reported("one", "speed")?.as_str(),
            cloud.reported("three", "speed")?.as_str(),
        ) {
            ("300", "700") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(
        one.writes(),
        [(1, 100), (1, 200), (1, 300)],
        "each generation was written once"
    );
    assert_eq!(two.writes(), [(1, 100)]);
    assert_eq!(three.writes(), [(1, 700)]);
}

#[test]
fn an_emptied_or_another_cluster_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut motor = Modbus::tcp();
    let mut cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(MODEL);
    cloud.apply(&device("one", motor.port, "100"));
    cloud.apply(&config("site", "cellar"));
    eventually("the motor runs", || register(&mut motor, 100));
    eventually("the ConfigMap is on the bus", || value_of(&node, "site"));

    // Somebody deletes the standalone database while the edge runs.
    cloud.cut();
    cloud.standalone.kill();
    std::fs::remove_dir_all(cloud.dir.join("api")).unwrap();
    cloud.restart_api();
    cloud.connect();
    eventually(
        "the link says why it does not follow, and what to do",
        || {
            let link = node.retained("edge/v1/link")?;
            let why = link["why"].as_str().unwrap_or_default();
            if link["state"] != "up" && why.contains("--accept-cluster") {
                Ok(())
            } else {
                Err(link.to_string())
            }
        },
    );
    assert_eq!(value_of(&node, "site").unwrap(), "cellar");
    let before = motor.reads();
    eventually("polling goes on", || {
        if motor.reads() > before {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });
    assert_eq!(motor.writes(), [(1, 100)]);
}
