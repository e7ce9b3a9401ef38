//! What a thousand devices cost in memory, printed; nothing here passes or fails on a figure.
//!
//! ```text
//! cargo test -p edgebus-standalone --test memory -- --ignored --nocapture
//! ```
//! Server and client share this process, so the client's part is in the figures too.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Instant;

const DEVICES: usize = 1000;
const GROUP: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";

/// PSS of this process in MB.
fn pss() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap();
    let kb: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kb * 1.024 / 1000.0
}

fn spec(i: usize) -> Value {
    let properties: Vec<Value> = (0..7)
        .map(|p| {
            json!({"name": format!("property-{p}"), "collectCycle": 1000, "reportCycle": 1000,
                "reportToCloud": true, "desired": {"value": "21"},
                "visitors": {"protocolName": "modbus", "configData": {
                    "register": "HoldingRegister", "offset": p, "limit": 1, "scale": 0.1}}})
        })
        .collect();
    json!({"deviceModelRef": {"name": "many"}, "nodeName": format!("edge-{}", i % 10),
        "protocol": {"protocolName": "modbus", "configData": {
            "communicateMode": "TCP", "ip": "127.0.0.1", "port": "5020", "slaveID": i % 247}},
        "properties": properties})
}

fn status(round: usize) -> Value {
    let twins: Vec<Value> = (0..7)
        .map(|p| {
            let at = json!({"timestamp": format!("17639000{round:05}"), "type": "float"});
            json!({"propertyName": format!("property-{p}"),
                "reported": {"value": format!("2{round}.{p}"), "metadata": at},
                "observedDesired": {"value": "21", "metadata": at}})
        })
        .collect();
    json!({"status": {"state": "online", "lastOnlineTime": "2026-01-01T00:00:00Z", "twins": twins}})
}

async fn all(what: &str, send: impl AsyncFn(usize)) {
    let begun = Instant::now();
    for part in (0..DEVICES).collect::<Vec<_>>().chunks(20) {
        join_all(part.iter().map(|i| send(*i))).await;
    }
    println!(
        "{:6.1} MB, {:5.2} s: {what}",
        pss(),
        begun.elapsed().as_secs_f64()
    );
}

#[tokio::test]
#[ignore = "prints figures"]
async fn a_thousand_devices() {
    let (_dir, server) = server().await;
    let c = &server.client;
    for plural in ["devices", "devicestatuses"] {
        let path = format!(
            "{}/../../configs/crds/{plural}.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).unwrap();
        c.send(http::Method::POST, CRDS, "application/yaml", text)
            .await
            .ok();
    }
    println!("{:6.1} MB: idle", pss());
    all("devices", async |i| {
        let device = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": {"name": format!("d-{i}")}, "spec": spec(i)});
        c.post(&format!("{GROUP}/devices"), &device).await.ok();
    })
    .await;
    all("their statuses", async |i| {
        let device = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceStatus",
            "metadata": {"name": format!("d-{i}")}});
        c.post(&format!("{GROUP}/devicestatuses"), &device)
            .await
            .ok();
    })
    .await;
    let mut watch = c
        .watch(&format!("{GROUP}/devicestatuses?watch=true"), "")
        .await;
    tokio::spawn(async move { while watch.next().await.is_some() {} });
    for round in 1..=4 {
        all("a round of status updates", async |i| {
            let path = format!("{GROUP}/devicestatuses/d-{i}/status");
            c.patch(&path, "merge", &status(round)).await.ok();
        })
        .await;
    }
    for plural in ["devices", "devicestatuses"] {
        let begun = Instant::now();
        let bytes = c.get(&format!("{GROUP}/{plural}")).await.bytes.len();
        let took = begun.elapsed().as_millis();
        println!(
            "{:6.1} MB, {took} ms: listing {plural}, {bytes} bytes",
            pss()
        );
    }
    server.stop().await;
}
