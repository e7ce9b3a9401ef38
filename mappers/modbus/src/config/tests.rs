//! KubeEdge's spellings, and what is refused.

use super::*;
use edgebus_mapper_sdk::lower_keys;

pub fn dev(config: Value) -> Dev {
    Dev::read(&lower_keys(config.as_object().unwrap())).unwrap()
}

fn property(kind: &str) -> PropertyConfig {
    serde_json::from_value(json!({"name": "p", "type": kind})).unwrap()
}

fn read(kind: &str, visitor: Value) -> Result<Point, String> {
    Point::read(
        &dev(json!({"ip": "h"})),
        &property(kind),
        &lower_keys(visitor.as_object().unwrap()),
    )
}

pub fn point(table: &str, address: u16, count: u16) -> Point {
    let kind = if count == 1 { "INT" } else { "DOUBLE" };
    let mut p = read(kind, json!({"register": table, "offset": address})).unwrap();
    p.count = count;
    p
}

#[test]
fn kubeedge_spellings_of_a_device_are_read() {
    for config in [
        json!({"communicateMode": "TCP", "ip": "10.0.0.9", "port": "5502", "slaveID": 3}),
        json!({"CommunicateMode": "tcp", "IP": "10.0.0.9", "Port": 5502, "SlaveID": "3"}),
        json!({"tcp": {"ip": "10.0.0.9", "port": 5502}, "slaveID": 3.0}),
    ] {
        let d = dev(config.clone());
        assert_eq!(d.link.key(), "tcp:10.0.0.9:5502", "{config}");
        assert_eq!(d.slave, 3);
    }
    let d = dev(
        json!({"SerialPort": "/dev/ttyS0", "BaudRate": "19200", "DataBits": "8", "Parity": "even", "StopBits": "1"}),
    );
    assert_eq!(d.link.key(), "rtu:/dev/ttyS0");
    assert_eq!(d.link.settings(), "19200 8Even1");
}

#[test]
fn kubeedge_spellings_of_a_property_are_read() {
    let p = read("INT", json!({"Register": "HoldingRegister", "Offset": "2", "Limit": "1", "Scale": "1.0", "IsSwap": "true", "IsRegisterSwap": "false"})).unwrap();
    assert_eq!(
        (p.table, p.address, p.count, p.swap_bytes, p.swap_words),
        (Table::Holding, 2, 1, true, false)
    );
    assert!(!p.kind.eq(&ValueType::Float));
    assert_eq!(
        read(
            "BOOLEAN",
            json!({"register": "CoilRegister", "offset": 0, "limit": 1})
        )
        .unwrap()
        .form,
        Form::Bool
    );
    assert_eq!(
        read(
            "FLOAT",
            json!({"register": "InputRegister", "offset": 0, "limit": 2})
        )
        .unwrap()
        .form,
        Form::Float
    );
    assert_eq!(
        read(
            "FLOAT",
            json!({"register": "InputRegister", "offset": 0, "scale": 0.1})
        )
        .unwrap()
        .form,
        Form::Int { signed: false }
    );
}

#[test]
fn what_is_wrong_is_named_with_its_value_and_what_is_allowed() {
    for (visitor, says) in [
        (json!({"offset": 1}), "register is missing"),
        (
            json!({"register": "Foo", "offset": 1}),
            "\"foo\": CoilRegister",
        ),
        (json!({"register": "coil"}), "offset is required"),
        (
            json!({"register": "holding", "offset": "x"}),
            "offset = \"x\" is not valid: a whole number from 0 to 65535",
        ),
        (
            json!({"register": "holding", "offset": 65535, "limit": 2}),
            "behind the last register",
        ),
        (
            json!({"register": "holding", "offset": 0, "dataType": "float32", "limit": 1}),
            "takes 2 register",
        ),
        (
            json!({"register": "holding", "offset": 0, "limit": 3}),
            "1, 2 or 4",
        ),
        (
            json!({"register": "holding", "offset": 0, "scale": 0}),
            "scale = 0",
        ),
        (
            json!({"register": "holding", "offset": 0, "dataType": "money"}),
            "\"money\"",
        ),
        (
            json!({"register": "holding", "offset": 0, "byteOrder": "XYZ"}),
            "ABCD",
        ),
        (
            json!({"register": "coil", "offset": 0, "limit": 8}),
            "1 coil",
        ),
    ] {
        let said = read("INT", visitor).unwrap_err();
        assert!(said.contains(says), "{said}");
    }
    for (config, says) in [
        (json!({}), "ip is required"),
        (json!({"ip": "h", "port": 70000}), "port = 70000"),
        (json!({"communicateMode": "udp"}), "TCP or RTU"),
        (
            json!({"serialPort": "/dev/x", "parity": "mark"}),
            "none, even or odd",
        ),
        (json!({"ip": "h", "slaveID": "-1"}), "slaveID = \"-1\""),
    ] {
        let said = Dev::read(&lower_keys(config.as_object().unwrap())).unwrap_err();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_manual_that_counts_from_one_is_followed() {
    let d = dev(json!({"ip": "h", "addressBase": 1}));
    let visitor = json!({"register": "holding", "offset": 1});
    assert_eq!(
        Point::read(&d, &property("INT"), visitor.as_object().unwrap())
            .unwrap()
            .address,
        0
    );
    let visitor = json!({"register": "holding", "offset": 0});
    assert!(
        Point::read(&d, &property("INT"), visitor.as_object().unwrap())
            .unwrap_err()
            .contains("addressBase")
    );
}
