//! The clients that people have: mosquitto_pub and mosquitto_sub, both MQTT versions.

// What helps a test may fail like a test.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output, Stdio};

use common::{Bus, E};

fn client(program: &str, bus: &Bus, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &bus.tcp.port().to_string()])
        .args(["-u", name, "-P", &format!("{name}-token")])
        .args(args);
    command
}

async fn done(command: Command) -> Output {
    let output = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(common::PATIENCE, output).await;
    output
        .expect("the client ends in time")
        .expect("mosquitto-clients is installed: apt-get install mosquitto-clients")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test]
async fn mosquitto_publishes_and_subscribes() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::start(dir.path()).await;
    for version in ["mqttv311", "mqttv5"] {
        let topic = format!("{E}/obj/device/d/pump");
        let args = [
            "-V", version, "-i", "link", "-q", "1", "-r", "-t", &topic, "-m", "{}",
        ];
        let output = done(client("mosquitto_pub", &bus, "link", &args)).await;
        assert!(output.status.success(), "{}", said(&output));
        let filter = format!("{E}/obj/#");
        let args = ["-V", version, "-q", "1", "-C", "1", "-v", "-t", &filter];
        let output = done(client("mosquitto_sub", &bus, "viewer", &args)).await;
        assert_eq!(said(&output).trim(), format!("{topic} {{}}"));
    }
    bus.stop().await;
}

#[tokio::test]
async fn mosquitto_sees_hw_topics_and_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::start(dir.path()).await;
    let args = ["-C", "2", "-v", "-t", "$hw/#", "-t", "app/ready"];
    let mut sub = client("mosquitto_sub", &bus, "shop", &args);
    let sub = sub.stdout(Stdio::piped()).spawn().unwrap();
    let connected = || bus.probe.router().filters >= 2;
    common::eventually("it has subscribed", connected).await;
    let pub_args = ["-q", "1", "-t", "app/ready", "-m", "1"];
    done(client("mosquitto_pub", &bus, "shop", &pub_args)).await;
    let hw = "$hw/events/device/d/pump/twin/update/delta";
    let delta = ["-i", "devicetwin", "-q", "1", "-t", hw, "-m", "{}"];
    done(client("mosquitto_pub", &bus, "devicetwin", &delta)).await;
    let output = tokio::task::spawn_blocking(|| sub.wait_with_output())
        .await
        .unwrap();
    assert_eq!(said(&output.unwrap()), format!("app/ready 1\n{hw} {{}}\n"));
    let refused = ["-V", "mqttv5", "-q", "1", "-t", hw, "-m", "{}"];
    let output = done(client("mosquitto_pub", &bus, "shop", &refused)).await;
    assert!(
        said(&output).contains("may not publish"),
        "{}",
        said(&output)
    );
    let mut bad = Command::new("mosquitto_pub");
    bad.args([
        "-p",
        &bus.tcp.port().to_string(),
        "-u",
        "shop",
        "-P",
        "wrong",
    ]);
    bad.args(["-t", "app/x", "-m", "1"]);
    let output = done(bad).await;
    assert!(!output.status.success());
    assert!(
        said(&output).contains("not authorised"),
        "{}",
        said(&output)
    );
    bus.stop().await;
}

#[tokio::test]
async fn many_messages_of_mosquitto_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::start(dir.path()).await;
    let args = ["-q", "1", "-C", "2000", "-t", "app/n"];
    let mut sub = client("mosquitto_sub", &bus, "shop", &args);
    let sub = sub.stdout(Stdio::piped()).spawn().unwrap();
    let connected = || bus.probe.router().filters >= 1;
    common::eventually("it has subscribed", connected).await;
    let lines: String = (0..2000).map(|n| format!("{n}\n")).collect();
    let args = ["-q", "1", "-l", "-t", "app/n"];
    let mut publisher = client("mosquitto_pub", &bus, "shop", &args);
    let mut publisher = publisher.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = publisher.stdin.take().unwrap();
    let sent = lines.clone();
    tokio::task::spawn_blocking(move || std::io::Write::write_all(&mut input, sent.as_bytes()))
        .await
        .unwrap()
        .unwrap();
    let output = tokio::task::spawn_blocking(|| sub.wait_with_output())
        .await
        .unwrap();
    assert_eq!(said(&output.unwrap()), lines);
    tokio::task::spawn_blocking(move || publisher.wait())
        .await
        .unwrap()
        .unwrap();
    bus.stop().await;
}
