//! The example manifests are read as they are meant, and nothing in them is unknown.

use edgebus_api::{AccessMode, Device, DeviceModel, PropertyType};
use serde_json::Value;
use std::path::PathBuf;

fn documents(file: &str) -> (DeviceModel, Device) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../configs/examples");
    let text = std::fs::read_to_string(path.join(file)).expect(file);
    let mut parts = text.split("\n---\n").map(|part| {
        let value: Value = serde_saphyr::from_str(part).expect(file);
        assert_eq!(value["apiVersion"], edgebus_api::API_VERSION, "{file}");
        value
    });
    let model = parts.next().expect("a model first");
    let device = parts.next().expect("then a device");
    (
        serde_json::from_value(model).expect(file),
        serde_json::from_value(device).expect(file),
    )
}

#[test]
fn every_example_is_a_model_and_a_device_of_it() {
    for file in [
        "modbus-tcp.yaml",
        "modbus-rtu.yaml",
        "virtual.yaml",
        "mqtt.yaml",
    ] {
        let (model, device) = documents(file);
        assert_eq!(
            (model.kind.as_str(), device.kind.as_str()),
            ("DeviceModel", "Device"),
            "{file}"
        );
        let reference = device.spec.device_model_ref.clone().expect(file);
        assert_eq!(reference.name, model.metadata.name, "{file}");
        assert!(
            device.spec.extra.is_empty() && model.spec.extra.is_empty(),
            "{file}"
        );
        for p in &device.spec.properties {
            assert!(p.extra.is_empty(), "{file}: {:?}", p.extra);
            assert!(
                model.spec.properties.iter().any(|m| m.name == p.name),
                "{file}: {}",
                p.name
            );
        }
    }
}

#[test]
fn quoted_and_plain_values_and_both_cycle_units_are_read() {
    let (model, device) = documents("modbus-tcp.yaml");
    assert_eq!(model.spec.properties[1].access_mode, AccessMode::ReadOnly);
    assert_eq!(model.spec.properties[2].kind, PropertyType::Boolean);
    assert_eq!(
        device.spec.properties[1].collect_cycle,
        Some(10_000_000_000)
    );
    let (model, device) = documents("virtual.yaml");
    let minimum = model.spec.properties[0].minimum.clone().expect("a minimum");
    assert_eq!(minimum.as_str(), "5");
    let desired = device.spec.properties[0].desired.clone().expect("a value");
    assert_eq!(desired.value.as_str(), "21.5");
}

/// What is read and written again is KubeEdge's shape: values are texts, unknown fields are kept.
#[test]
fn an_object_keeps_its_shape() {
    let given = serde_json::json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": "d", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "deviceModelRef": {"name": "m"}, "nodeName": "n", "later": {"x": 1},
            "protocol": {"protocolName": "modbus", "configData": {"Port": "1502", "list": [1, {"a": null}]}},
            "properties": [{
                "name": "p", "reportToCloud": true, "collectCycle": 10, "reportCycle": 20,
                "desired": {"value": "1", "metadata": {"type": "int"}},
                "visitors": {"protocolName": "modbus", "configData": {"Offset": "2"}},
                "pushMethod": {"mqtt": {"address": "a", "topic": "t", "qos": 1, "retained": false},
                    "dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "x", "dbName": "y"}}}},
            }],
        },
    });
    let device: Device = serde_json::from_value(given.clone()).expect("it reads");
    assert_eq!(serde_json::to_value(&device).expect("it writes"), given);
}
