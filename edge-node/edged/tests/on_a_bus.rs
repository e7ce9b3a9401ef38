//! edged on a real bus (Debian's mosquitto, which loses its state when it is killed: the worst
//! broker that edged can have).

#![allow(clippy::unwrap_used)]

use edgebus_bus::payload::{Beat, NodeStatus};
use edgebus_bus::{Name, NodeName, Topic};
use edgebus_client::{Address, Bus, ConnectOptions};
use edgebus_edged::{Config, run};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Mosquitto(Child);

impl Mosquitto {
    fn start(dir: &Path) -> Self {
        let config = format!(
            "listener 0 {}\nallow_anonymous true\nuser root\n",
            dir.join("bus.sock").display()
        );
        std::fs::write(dir.join("mosquitto.conf"), config).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("mosquitto")
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg("-c")
            .arg(dir.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Debian's package mosquitto");
        Self(child)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn bus(dir: &Path, name: &str) -> Bus {
    let address = Address::Unix(dir.join("bus.sock"));
    let options = ConnectOptions::visitor(address, Name::new(name).unwrap());
    let bus = Bus::connect(options, CancellationToken::new());
    bus.connected(PATIENCE).await.unwrap();
    bus
}

#[tokio::test]
async fn a_node_says_what_it_is_once_and_beats_and_says_it_again_to_a_new_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path());
    let watcher = bus(dir.path(), "link").await;
    let status = Topic::NodeStatus {}.to_string();
    let beat = Topic::NodeBeat {}.to_string();
    let mut seen = watcher.subscribe([status.clone(), beat]).await.unwrap();
    seen.granted().await.unwrap();
    let config = Config {
        node: NodeName::new("gw").unwrap(),
        data_dir: dir.path().to_owned(),
        pass: Duration::from_millis(20),
    };
    let stop = CancellationToken::new();
    let edged = tokio::spawn(run(config, bus(dir.path(), "edged").await, stop.clone()));
    let mut next = async || {
        timeout(PATIENCE, seen.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };

    let first = next().await;
    assert_eq!(first.topic, status);
    let said: NodeStatus = first.read().unwrap();
    assert_eq!(said.node, "gw");
    let conditions = said.status["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True");
    for seq in 1..=5 {
        let message = next().await;
        assert_ne!(
            message.topic, status,
            "said again though nothing has changed"
        );
        assert_eq!(message.read::<Beat>().unwrap().seq, seq);
    }

    drop(broker);
    let _again = Mosquitto::start(dir.path());
    while next().await.topic != status {}
    stop.cancel();
    edged.await.unwrap().unwrap();
}
