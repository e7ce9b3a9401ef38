//! What survives a stop, a kill and a broken file.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use edgebus_standalone::{Config, Server};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(Config::new(dir.path())).await;
    server.client.post(CRDS, &definition()).await.ok();
    let made = server
        .client
        .post(THINGS, &thing("a", json!({"size": 3})))
        .await
        .ok();
    server.stop().await;

    let server = Running::start(Config::new(dir.path())).await;
    let found = server.client.get(&format!("{THINGS}/a")).await.ok();
    assert_eq!(found, made);
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let changed = server
        .client
        .patch(
            &format!("{THINGS}/a"),
            "merge",
            &json!({"spec": {"size": 4}}),
        )
        .await
        .ok();
    let number = |v: &Value| -> u64 { v.as_str().unwrap().parse().unwrap() };
    assert!(number(&changed["metadata"]["resourceVersion"]) > number(&json!(version)));
    server.stop().await;
}

#[tokio::test]
async fn a_broken_database_is_moved_aside_and_the_server_starts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(Config::new(dir.path())).await;
    for n in 0..50 {
        server
            .client
            .post(
                CONFIG_MAPS,
                &config_map(&format!("c{n}"), &"x".repeat(2000)),
            )
            .await
            .ok();
    }
    server.stop().await;
    let path = dir.path().join("objects.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[4096..middle] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let server = Running::start(Config::new(dir.path())).await;
    assert_eq!(
        server.client.get(&format!("{CONFIG_MAPS}/c1")).await.status,
        404
    );
    server
        .client
        .post(CONFIG_MAPS, &config_map("new", "1"))
        .await
        .ok();
    let aside = std::fs::read_dir(dir.path()).unwrap().any(|e| {
        e.unwrap()
            .file_name()
            .to_string_lossy()
            .contains("unreadable")
    });
    assert!(aside);
    server.stop().await;
}

/// Not a test by itself: the server that the next test kills.
#[tokio::test]
#[ignore = "run by nothing_acknowledged_is_lost_by_kill"]
async fn child_server() {
    let Ok(dir) = std::env::var("EDGEBUS_TEST_DIR") else {
        return;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::open(Config::new(&dir), listener, CancellationToken::new())
        .await
        .unwrap();
    server.run().await.unwrap();
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_server", "--ignored"])
        .env("EDGEBUS_TEST_DIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the server in the folder answers.
async fn ready(dir: &Path) -> Client {
    let kubeconfig = dir.join("kubeconfig");
    eventually("the server is ready", async || {
        let text = std::fs::read_to_string(&kubeconfig)
            .ok()
            .filter(|t| t.contains("contexts"))?;
        let client = Client::new(&text, true);
        let answer = client
            .try_send(http::Method::GET, "/readyz", "", "", "")
            .await;
        answer.is_ok().then_some(client)
    })
    .await
}

/// For a long run: `EDGEBUS_TEST_KILLS=100`.
#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let kills = std::env::var("EDGEBUS_TEST_KILLS").map_or(3, |n| n.parse().unwrap());
    for round in 0..kills {
        std::fs::remove_file(dir.path().join("kubeconfig")).ok();
        let mut child = spawn(dir.path());
        let client = ready(dir.path()).await;
        let count = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, count) = (client.clone(), count.clone());
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for n in 0.. {
                        let name = format!("r{round}-w{writer}-{n}");
                        let body = config_map(&name, &name).to_string();
                        let sent = client
                            .try_send(
                                http::Method::POST,
                                CONFIG_MAPS,
                                "application/json",
                                "",
                                body,
                            )
                            .await;
                        match sent {
                            Ok(reply) if reply.status == 201 => done.push(reply.json()),
                            _ => break,
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    done
                })
            })
            .collect();
        eventually("writes are under way", async || {
            (count.load(Ordering::SeqCst) > 40).then_some(())
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        for writer in writers {
            acknowledged.extend(
                tokio::time::timeout(Duration::from_secs(30), writer)
                    .await
                    .unwrap()
                    .unwrap(),
            );
        }
    }
    std::fs::remove_file(dir.path().join("kubeconfig")).ok();
    let mut child = spawn(dir.path());
    let client = ready(dir.path()).await;
    let mut versions = std::collections::HashSet::new();
    for object in &acknowledged {
        let name = object["metadata"]["name"].as_str().unwrap();
        let found = client.get(&format!("{CONFIG_MAPS}/{name}")).await.ok();
        assert_eq!(&found, object);
        assert!(
            versions.insert(object["metadata"]["resourceVersion"].clone()),
            "a version is given once"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
