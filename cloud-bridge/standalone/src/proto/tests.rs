//! Bodies that kubectl 1.37 sent, against the JSON it prints for the same command; and
//! bodies that nobody should send.

use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ProtoError, decode, tables};

fn bytes(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

#[test]
fn what_kubectl_sends_is_what_it_prints() {
    let rows: Vec<Value> = serde_json::from_str(include_str!("kubectl_bodies.json")).unwrap();
    for row in rows {
        let mut decoded = decode(&bytes(row["base64"].as_str().unwrap())).unwrap();
        // Where kubectl leaves the namespace to the URL, it prints none.
        if row["json"].pointer("/metadata/namespace").is_none()
            && let Some(Value::Object(metadata)) = decoded.get_mut("metadata")
        {
            metadata.remove("namespace");
        }
        assert_eq!(decoded, row["json"], "{}", row["command"]);
    }
}

/// A field with a length.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag << 3 | 2];
    let mut length = content.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, raw)].concat()
}

#[test]
fn zeroes_of_values_are_left_out_and_those_of_pointers_kept() {
    // replicas: 0 (a pointer), minReadySeconds: 0 (a value)
    let spec = [0x08, 0x00, 0x28, 0x00];
    let deployment = decode(&body("apps/v1", "Deployment", &field(2, &spec))).unwrap();
    assert_eq!(deployment["spec"], json!({"replicas": 0}));
}

#[test]
fn delete_options_are_one_message_in_every_group() {
    let raw = [
        vec![0x08, 0x00],
        field(2, &field(1, b"uid-1")),
        field(4, b"Background"),
        field(5, b"All"),
    ]
    .concat();
    for api_version in ["v1", "meta.k8s.io/v1", "apps/v1"] {
        assert_eq!(
            decode(&body(api_version, "DeleteOptions", &raw)).unwrap(),
            json!({
                "apiVersion": api_version, "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "uid-1"}, "propagationPolicy": "Background",
                "dryRun": ["All"],
            })
        );
    }
}

#[test]
fn times_quantities_and_negative_numbers_are_written_as_in_json() {
    let time = [0x08, 0x80, 0x92, 0xb8, 0xc3, 0x06]; // 1752041728 s
    let meta = decode(&body("v1", "Namespace", &field(1, &field(8, &time)))).unwrap();
    assert_eq!(
        meta["metadata"]["creationTimestamp"],
        "2025-07-09T06:15:28Z"
    );

    let micro = [time.to_vec(), vec![0x10, 0xc0, 0x84, 0x3d]].concat(); // + 1 ms
    let lease = field(2, &field(4, &micro));
    let lease = decode(&body("coordination.k8s.io/v1", "Lease", &lease)).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2025-07-09T06:15:28.001000Z");

    let capacity = [field(1, b"cpu"), field(2, &field(1, b"500m"))].concat();
    let node = decode(&body("v1", "Node", &field(3, &field(1, &capacity)))).unwrap();
    assert_eq!(node["status"]["capacity"], json!({"cpu": "500m"}));

    let minus_one = [&[0x20][..], &[0xff; 9], &[0x01]].concat();
    let pod = decode(&body("v1", "Pod", &field(2, &minus_one))).unwrap();
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], -1);
}

#[test]
fn embedded_structs_are_flattened_and_empty_choices_kept() {
    // volumes[0]: name, volumeSource{emptyDir{}}
    let volume = [field(1, b"v"), field(2, &field(2, &[]))].concat();
    let pod = decode(&body("v1", "Pod", &field(2, &field(1, &volume)))).unwrap();
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
}

#[test]
fn every_refusal_says_what_and_where() {
    let error = |body: &[u8]| decode(body).unwrap_err();
    assert_eq!(error(b"{}"), ProtoError::NoEnvelope);
    assert_eq!(
        error(&body("batch/v1", "Job", &[])).to_string(),
        "Job (batch/v1) in protobuf is not supported here: send it as application/json"
    );
    assert_eq!(
        error(&body("v1", "ConfigMap", &field(1, &field(1, &[0xff])))),
        ProtoError::NotUtf8 {
            at: "ConfigMap.metadata.name".into()
        }
    );
    assert_eq!(
        error(&body("v1", "ConfigMap", &[0x0a, 0x7f])),
        ProtoError::Malformed {
            at: "ConfigMap".into()
        }
    );
    let late = field(1, &field(8, &[&[0x08][..], &[0xff; 8], &[0x7f]].concat()));
    assert_eq!(
        error(&body("v1", "ConfigMap", &late)),
        ProtoError::BadTime {
            at: "ConfigMap.metadata.creationTimestamp".into()
        }
    );
}

#[test]
fn a_small_body_cannot_become_a_huge_object() {
    let containers = field(2, &[]).repeat(400_000);
    let error = decode(&body("v1", "Pod", &field(2, &containers))).unwrap_err();
    assert!(matches!(error, ProtoError::TooLarge { .. }), "{error}");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..40_usize) {
        let kinds: Vec<_> = tables::kinds().collect();
        let (api_version, kind) = kinds[kind % kinds.len()];
        drop(decode(&raw));
        drop(decode(&[b"k8s\0".to_vec(), raw.clone()].concat()));
        drop(decode(&body(api_version, kind, &raw)));
        drop(decode(&body(api_version, kind, &field(2, &raw))));
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0..400_usize, to in any::<u8>(), cut in 0..600_usize, row in 0..16_usize) {
        let rows: Vec<Value> = serde_json::from_str(include_str!("kubectl_bodies.json")).unwrap();
        let mut bytes = bytes(rows[row % rows.len()]["base64"].as_str().unwrap());
        let len = bytes.len();
        bytes[at % len] = to;
        bytes.truncate(cut.max(4));
        drop(decode(&bytes));
    }
}
