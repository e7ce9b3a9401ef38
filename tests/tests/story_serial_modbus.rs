//! The Modbus mapper on a serial line: two pseudo-terminals joined by socat, pymodbus at the far end.

use edgebus_tests::field::Modbus;
use edgebus_tests::run::Proc;
use edgebus_tests::{Cloud, Node, eventually};
use std::process::Command;

#[test]
fn rtu_devices_share_a_line_and_follow_their_desired_values() {
    let dir = tempfile::tempdir().unwrap();
    let (near, far) = (dir.path().join("near"), dir.path().join("far"));
    let mut socat = Command::new("socat");
    for end in [&near, &far] {
        socat.arg(format!("pty,raw,echo=0,link={}", end.display()));
    }
    let _line = Proc::start("socat", dir.path(), socat);
    eventually("the line is there", || {
        if near.exists() && far.exists() {
            Ok(())
        } else {
            Err("no ptys".into())
        }
    });
    let mut slave = Modbus::serial(far.to_str().unwrap(), 19_200);
    slave.set(20, 1234);

    let cloud = Cloud::start(dir.path());
    let _node = Node::joined(dir.path(), "gw", &cloud);
    cloud.apply(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: meter, namespace: default}
spec:
  protocol: modbus
  properties:
  - {name: limit, type: INT, accessMode: ReadWrite}
  - {name: power, type: INT, accessMode: ReadOnly}
"#,
    );
    for unit in [1, 2] {
        cloud.apply(&format!(
            r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: meter-{unit}, namespace: default}}
spec:
  deviceModelRef: {{name: meter}}
  nodeName: gw
  protocol:
    protocolName: modbus
    configData: {{CommunicateMode: RTU, SerialPort: {port}, BaudRate: "19200", DataBits: "8", Parity: none, StopBits: "1", slaveID: {unit}, timeout: 500}}
  properties:
  - {{name: limit, collectCycle: 300, reportToCloud: true, desired: {{value: "{unit}00"}}, visitors: {{protocolName: modbus, configData: {{register: HoldingRegister, offset: {unit}}}}}}}
  - {{name: power, collectCycle: 300, reportToCloud: true, visitors: {{protocolName: modbus, configData: {{register: InputRegister, offset: 20}}}}}}
"#,
            port = near.display()
        ));
    }
    eventually("both desired values crossed the line", || {
        match (slave.get(1), slave.get(2)) {
            (100, 200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    for name in ["meter-1", "meter-2"] {
        eventually("the reading is in the DeviceStatus", || {
            match cloud.reported(name, "power")?.as_str() {
                "1234" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
    let mut writes = slave.writes();
    writes.sort_unstable();
    assert_eq!(writes, [(1, 100), (2, 200)]);
}
