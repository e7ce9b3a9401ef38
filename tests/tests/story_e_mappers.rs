//! Story E: mappers in Python and shell, dropped into `mappers.d/`; and what tokens do not allow.

use edgebus_tests::field::{Modbus, Sub, mosquitto_pub, settings};
use edgebus_tests::run::{here, output, tool};
use edgebus_tests::{Cloud, Node, eventually};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

fn drop_in(node: &Node, source: &str, name: &str) {
    let text = std::fs::read_to_string(here(source)).unwrap();
    // The tests' Python environment stands in for the system's.
    let text = text.replace(
        "#!/usr/bin/env python3",
        &format!("#!{}", tool("python3").display()),
    );
    let new = node.dir.join(name);
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, node.mappers_dir().join(name)).unwrap();
}

fn device(protocol: &str, name: &str, port: u16) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: {name}, namespace: default}}
spec:
  protocol: {protocol}
  properties:
  - {{name: level, type: INT, accessMode: ReadWrite}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}, namespace: default}}
spec:
  deviceModelRef: {{name: {name}}}
  nodeName: gw
  protocol: {{protocolName: {protocol}, configData: {{port: {port}}}}}
  properties:
  - {{name: level, reportToCloud: true, desired: {{value: "7"}}, visitors: {{protocolName: {protocol}, configData: {{offset: 4}}}}}}
"#
    )
}

#[test]
fn a_mapper_in_python_and_one_in_shell_serve_devices() {
    let dir = tempfile::tempdir().unwrap();
    let mut device_of_python = Modbus::tcp();
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    drop_in(
        &node,
        "../configs/examples/mappers/pythonbus.py",
        "pythonbus",
    );
    drop_in(&node, "../configs/examples/mappers/shellbus.sh", "shellbus");
    cloud.apply(&device("pythonbus", "snake", device_of_python.port));
    cloud.apply(&device("shellbus", "clam", 0));
    eventually("Python wrote the register", || {
        match device_of_python.get(4) {
            7 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    for name in ["snake", "clam"] {
        eventually(&format!("{name} reports"), || {
            match cloud.reported(name, "level")?.as_str() {
                "7" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
    cloud.desire("clam", "level", "9");
    eventually("the shell follows", || {
        match cloud.reported("clam", "level")?.as_str() {
            "9" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    std::fs::remove_file(node.mappers_dir().join("pythonbus")).unwrap();
    eventually("a removed mapper is forgotten", || {
        match node.retained("edge/v1/mapper/pythonbus/hello") {
            Err(e) if e.contains("nothing is retained") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// What a client of these settings was refused, in mosquitto's words.
fn sub_code(node: &Node, role: &str, filter: &str) -> String {
    let mut command = Command::new("mosquitto_sub");
    command
        .args(["-d", "-W", "3", "-t", filter])
        .env("XDG_CONFIG_HOME", role_dir(node, role));
    let (_, out, err) = output(command, Duration::from_secs(10));
    out + &err
}

fn role_dir(node: &Node, role: &str) -> std::path::PathBuf {
    if role == "modbus" || role == "virtual" {
        node.run_dir().join("units").join(role)
    } else {
        settings(node, role)
    }
}

#[test]
fn nobody_speaks_or_listens_beyond_his_own_topics() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path());
    let node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(
        r#"
apiVersion: v1
kind: Secret
metadata: {name: wifi, namespace: default, labels: {edgebus.io/node: gw}}
stringData: {password: hunter2-in-the-clear}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: site, namespace: default, labels: {edgebus.io/node: gw}}
data: {where: cellar}
"#,
    );
    eventually("the ConfigMap is on the bus", || {
        node.retained("edge/v1/obj/configmap/default/site")
    });

    let viewer = Sub::start(&node, "viewer", "edge/v1/#");
    viewer.expect("the ConfigMap", |topic, p| {
        topic == "edge/v1/obj/configmap/default/site" && p.contains("cellar")
    });

    // A mapper's token.
    for filter in ["edge/v1/obj/#", "edge/v1/sealed/#", "edge/v1/dev/virtual/#"] {
        let said = sub_code(&node, "modbus", filter);
        assert!(
            said.contains("denied")
                || said.contains("128")
                || said.contains("135")
                || said.contains("Not authorized"),
            "{filter}: {said}"
        );
    }
    for topic in [
        "edge/v1/dev/virtual/default/x/report",
        "edge/v1/obj/configmap/default/site",
        "edge/v1/twin/default/x",
    ] {
        let mut command = Command::new("mosquitto_pub");
        command
            .args(["-q", "1", "-t", topic, "-m", "{}"])
            .env("XDG_CONFIG_HOME", role_dir(&node, "modbus"));
        let (code, out, err) = output(command, Duration::from_secs(10));
        assert!(
            code != 0
                || (out.clone() + &err)
                    .to_lowercase()
                    .contains("not authorized"),
            "{topic}: {code} {out} {err}"
        );
    }
    let after = node.retained("edge/v1/obj/configmap/default/site").unwrap();
    assert_eq!(after["obj"]["data"]["where"], "cellar");

    // A connection without a token.
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &node.tcp_port().to_string(),
        "-V",
        "5",
        "-t",
        "app/x",
        "-m",
        "1",
    ]);
    command.env("XDG_CONFIG_HOME", dir.path());
    let (code, _, err) = output(command, Duration::from_secs(10));
    assert!(code != 0, "a stranger was let in: {err}");

    // The viewer says nothing, and sees no secret; the secret is on no disk in the clear.
    let (code, said) = mosquitto_pub(&node, "viewer", &["-q", "1", "-t", "app/x", "-m", "1"]);
    assert!(
        code != 0 || said.to_lowercase().contains("not authorized"),
        "{said}"
    );
    eventually("the sealed Secret has arrived", || {
        let (code, out, err) = node.edgebus(&["get", "link", "-o", "json"]);
        if code == 0 && out.contains("secret") {
            Ok(())
        } else {
            Err(out + &err)
        }
    });
    let seen = viewer.seen();
    let secret: Vec<_> = seen
        .iter()
        .filter(|l| l.starts_with("edge/v1/sealed/") || l.contains("hunter2"))
        .collect();
    assert!(secret.is_empty(), "{secret:#?}");
    let grep = output(
        {
            let mut c = Command::new("grep");
            c.args([
                "-rl",
                "-e",
                "hunter2-in-the-clear",
                "-e",
                "aHVudGVyMi1pbi10aGUtY2xlYXI",
            ])
            .arg(&node.dir);
            c
        },
        Duration::from_secs(20),
    );
    assert_eq!(grep.1, "", "the secret lies in the clear in these files");
}
