//! Both ways between the API and a register.

use crate::stand::{NODE, Stand};
use crate::{Row, percentiles, row};
use edgebus_tests::api::{device, model, properties, reported};
use edgebus_tests::eventually;
use edgebus_tests::plant::Plant;
use futures_util::StreamExt;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

const SAMPLES: u16 = 250;
const WAIT: Duration = Duration::from_secs(10);
/// Reading cycle of the device whose register changes by itself.
const FAST_MS: u32 = 20;

pub fn measure() -> Vec<Row> {
    let stand = Stand::start(None);
    let plant = Plant::start();
    let kube = &stand.kube;
    kube.create("devicemodels", model("lat"))
        .expect("the API takes a model");
    kube.create(
        "devices",
        device("down", "lat", NODE, plant.port, 1, properties(1000, 1)),
    )
    .expect("the API takes a device");
    kube.create(
        "devices",
        device("up", "lat", NODE, plant.port, 2, properties(FAST_MS, 1)),
    )
    .expect("the API takes a device");
    eventually("both devices are served", || {
        if plant.get(1, 0) + plant.get(2, 0) == 2 {
            Ok(())
        } else {
            Err("no write yet".into())
        }
    });
    eventually("both are reported", || {
        let seen = ["up", "down"].map(|d| {
            kube.get("devicestatuses", d)
                .ok()
                .and_then(|s| reported(&s, "actual"))
        });
        if seen.iter().all(Option::is_some) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });

    let mut down = Vec::new();
    for value in 2..2 + SAMPLES {
        // Not in step with anything that ticks.
        std::thread::sleep(Duration::from_millis(20 + u64::from(value) * 37 % 41));
        let patch = json!({ "spec": { "properties": properties(1000, value) } });
        let begun = Instant::now();
        kube.patch("devices", "down", &patch)
            .expect("the API takes a desired value");
        let at = plant
            .written(1, 0, value, begun, WAIT)
            .expect("the register is written");
        down.push(at - begun);
    }

    let mut up = Vec::new();
    kube.run(async {
        let statuses = kube.kind("devicestatuses");
        let only = WatchParams::default()
            .fields("metadata.name=up")
            .timeout(250);
        let mut watch = Box::pin(statuses.watch(&only, "0").await.expect("a watch"));
        for value in 1..=SAMPLES {
            tokio::time::sleep(Duration::from_millis(60 + u64::from(value) * 37 % 41)).await;
            let begun = Instant::now();
            plant.set(2, 1, value);
            let text = value.to_string();
            let seen = async {
                while let Some(event) = watch.next().await {
                    if let Ok(WatchEvent::Added(o) | WatchEvent::Modified(o)) = event
                        && reported(&json!({ "status": o.data["status"] }), "actual").as_deref()
                            == Some(&text)
                    {
                        return begun.elapsed();
                    }
                }
                panic!("the watch ended")
            };
            up.push(
                tokio::time::timeout(WAIT, seen)
                    .await
                    .expect("the change is in the DeviceStatus"),
            );
        }
    });
    vec![
        row("desired value patched → register written, p50 / p99", percentiles(down)).against("≤ 20 / 100 ms", "30–690 ms"),
        row(format!("register changed → seen by a watch on DeviceStatus, p50 / p99 (read every {FAST_MS} ms)"), percentiles(up)).against("≤ 20 / 100 ms", "19–42 ms"),
    ]
}
