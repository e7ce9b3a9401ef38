//! Memory (PSS) of every process: idle, with 100 and with 1,000 polled devices; and what a
//! reconnect of the link costs with none and with all of them.

use crate::proxy::Proxy;
use crate::stand::{NODE, Stand};
use crate::{Row, row};
use edgebus_tests::api::{device, model, properties};
use edgebus_tests::eventually_for;
use edgebus_tests::plant::Plant;
use std::time::{Duration, Instant};

/// Everything polled is polled once a second.
const CYCLE_MS: u32 = 1000;
const PORTS: usize = 10;
const SETTLE: Duration = Duration::from_secs(6);

/// PSS in kB.
fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

fn mb(kb: u64) -> String {
    format!("{:.1}", kb as f64 / 1000.0 * 1.024)
}

/// User and system time in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum()
}

fn edge(stand: &Stand) -> String {
    let each: Vec<_> = stand
        .pids()
        .into_iter()
        .map(|(name, pid)| (name, pss(pid)))
        .collect();
    let sum = each.iter().map(|(_, kb)| kb).sum();
    let parts: Vec<_> = each
        .iter()
        .map(|(name, kb)| format!("{name} {}", mb(*kb)))
        .collect();
    format!("**{} MB** = {}", mb(sum), parts.join(" + "))
}

fn cloud(stand: &Stand) -> (String, String) {
    let bridge = stand.cloud.bridge.as_ref().map_or(0, |b| pss(b.pid()));
    (
        format!("{} MB", mb(bridge)),
        format!("{} MB", mb(pss(stand.cloud.standalone.pid()))),
    )
}

/// Bytes of a reconnect in which nothing has changed, the TLS handshake included.
fn reconnect(proxy: &Proxy) -> String {
    let rounds = 5;
    let (mut up, mut down) = (0, 0);
    for _ in 0..rounds {
        // A connection that has lived this long earns an immediate retry.
        std::thread::sleep(Duration::from_millis(5200));
        let before = proxy.count();
        proxy.cut();
        eventually_for(Duration::from_secs(20), "the link is back", || {
            if proxy.count().connections > before.connections {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
        let mut last = proxy.count();
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            std::thread::sleep(Duration::from_millis(400));
            let now = proxy.count();
            if (now.up == last.up && now.down == last.down && now.down > before.down)
                || Instant::now() > end
            {
                break;
            }
            last = now;
        }
        let now = proxy.count();
        up += now.up - before.up;
        down += now.down - before.down;
    }
    format!(
        "{:.1} kB up, {:.1} kB down (mean of {rounds})",
        up as f64 / 1e3 / f64::from(rounds),
        down as f64 / 1e3 / f64::from(rounds)
    )
}

/// Makes devices; how long the API took, and how long until all are online after that.
fn add(stand: &Stand, plants: &[Plant], from: usize, to: usize) -> (Duration, Duration) {
    let begun = Instant::now();
    for i in from..to {
        let plant = &plants[i % PORTS];
        let unit = u8::try_from(1 + i / PORTS).unwrap_or(1);
        let object = device(
            &format!("d-{i}"),
            "many",
            NODE,
            plant.port,
            unit,
            properties(CYCLE_MS, 7),
        );
        stand
            .kube
            .create("devices", object)
            .expect("the API takes a device");
    }
    let made = begun.elapsed();
    eventually_for(
        Duration::from_secs(120),
        "every device is online in its DeviceStatus",
        || {
            std::thread::sleep(Duration::from_millis(300));
            let all = stand.kube.list("devicestatuses")?;
            let online = all
                .iter()
                .filter(|s| s["status"]["state"] == "online")
                .count();
            if online == to {
                Ok(())
            } else {
                Err(format!("{online} of {to}"))
            }
        },
    );
    (made, begun.elapsed() - made)
}

pub fn measure() -> Vec<Row> {
    let proxy = Proxy::start();
    let stand = Stand::start(Some(&proxy));
    stand
        .kube
        .create("devicemodels", model("many"))
        .expect("the API takes a model");
    let plants: Vec<Plant> = (0..PORTS).map(|_| Plant::start()).collect();
    std::thread::sleep(SETTLE);
    let mut rows = vec![
        row("edge memory (PSS), idle, Modbus mapper", edge(&stand))
            .against("≤ 12 MB", "134 MB (with mosquitto and containerd)"),
    ];
    let (bridge, standalone) = cloud(&stand);
    rows.push(row("cloud-bridge memory, 1 node", bridge).against("≤ 20 MB", "76 MB"));
    rows.push(row("standalone memory, 1 node", standalone));
    let bytes = reconnect(&proxy);

    add(&stand, &plants, 0, 100);
    std::thread::sleep(SETTLE);
    rows.push(row(
        "… with 100 devices, 2 values each second",
        edge(&stand),
    ));
    let (made, more) = add(&stand, &plants, 100, 1000);
    std::thread::sleep(SETTLE);
    rows.push(row("… with 1,000 devices", edge(&stand)));
    let (bridge, standalone) = cloud(&stand);
    rows.push(row(
        "cloud-bridge / standalone with 1,000 devices",
        format!("{bridge} / {standalone}"),
    ));
    rows.push(row(
        "900 more devices: creating them one by one, then until all are online in their DeviceStatus",
        format!("{:.1} s, {:.1} s", made.as_secs_f64(), more.as_secs_f64()),
    ));
    let pids = stand.pids();
    let (before, reads) = (
        pids.iter().map(|(_, p)| ticks(*p)).sum::<u64>(),
        plants.iter().map(Plant::reads).sum::<u64>(),
    );
    let span = Duration::from_secs(5);
    std::thread::sleep(span);
    let used = pids.iter().map(|(_, p)| ticks(*p)).sum::<u64>() - before;
    let reads = plants.iter().map(Plant::reads).sum::<u64>() - reads;
    let note = format!(
        "{:.0} % of one core at {:.0} questions/s",
        used as f64 / span.as_secs_f64(),
        reads as f64 / span.as_secs_f64()
    );
    rows.push(row("CPU of the edge with 1,000 devices", note));
    rows.push(row(
        "bytes per reconnect, nothing changed, no devices",
        bytes,
    ));
    rows.push(row(
        "bytes per reconnect, nothing changed, 1,000 devices",
        reconnect(&proxy),
    ));
    rows
}
