//! Retained QoS 1 publishes per second, each durable before its PUBACK; and Debian's mosquitto beside it.

use crate::{Row, row};
use edgebus_tests::Node;
use edgebus_tests::cloud::free_port;
use edgebus_tests::field::settings;
use edgebus_tests::mqtt::Publisher;
use edgebus_tests::run::Proc;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(3);
const PAYLOAD: [u8; 100] = [b'x'; 100];
const TOPICS: u32 = 100;

/// Where to publish.
#[derive(Clone)]
struct Target {
    port: u16,
    user: Option<(String, String)>,
}

/// Publishers, publishes under way for each; acknowledged per second.
fn rate(target: &Target, publishers: usize, window: usize) -> std::io::Result<f64> {
    let begun = Instant::now();
    let threads: Vec<_> = (0..publishers)
        .map(|p| {
            let target = target.clone();
            std::thread::spawn(move || {
                let user = target.user.as_ref().map(|(n, t)| (n.as_str(), t.as_str()));
                let mut client = Publisher::tcp(target.port, &format!("app.bench-{p}"), user)?;
                let (mut turn, mut done) = (0u32, 0u64);
                while begun.elapsed() < SPAN {
                    while client.in_flight() < window {
                        client.publish(&format!("app/bench/{p}/{}", turn % TOPICS), &PAYLOAD, true);
                        turn += 1;
                    }
                    client.flush()?;
                    client.acknowledged()?;
                    done += 1;
                }
                while client.in_flight() > 0 {
                    client.acknowledged()?;
                    done += 1;
                }
                std::io::Result::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a publisher panicked")))?;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

fn rates(target: &Target) -> String {
    let shown = [(1, 1), (1, 32), (8, 32)].map(|(publishers, window)| {
        match rate(target, publishers, window) {
            Ok(rate) => format!("{rate:.0}"),
            Err(e) => format!("failed: {e}"),
        }
    });
    shown.join(" / ")
}

fn mosquitto(dir: &Path, name: &str, more: &str) -> Option<String> {
    let exe = [
        "/usr/sbin/mosquitto",
        "/usr/local/sbin/mosquitto",
        "/usr/bin/mosquitto",
    ]
    .into_iter()
    .find(|p| Path::new(p).exists())?;
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).ok()?;
    let port = free_port();
    // Debian's runs as its own user unless it is told who owns the folder.
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n{more}",
        folder.display()
    );
    std::fs::write(folder.join("conf"), text).ok()?;
    let mut command = Command::new(exe);
    command.arg("-c").arg(folder.join("conf"));
    let _proc = Proc::start("mosquitto", &folder, command);
    edgebus_tests::eventually("mosquitto listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .map(drop)
            .map_err(|e| e.to_string())
    });
    Some(rates(&Target { port, user: None }))
}

pub fn measure() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let node = Node::alone(dir.path(), "publish");
    let options = std::fs::read_to_string(settings(&node, "app").join("mosquitto_pub"))
        .expect("the role app has settings");
    let token = options
        .lines()
        .find_map(|l| l.strip_prefix("-P "))
        .expect("the settings have a token");
    let ours = rates(&Target {
        port: node.tcp_port(),
        user: Some(("app".into(), token.to_owned())),
    });
    drop(node);
    let mut rows = vec![row(
        "retained QoS 1 publishes/s, fsync before each PUBACK: 1 client one by one / 1 client × 32 under way / 8 × 32",
        ours,
    )];
    let sorts = [
        (
            "mosquitto, same clients, saving at each change",
            "autosave_on_changes true\nautosave_interval 1\n",
        ),
        (
            "mosquitto, same clients, as it is shipped (saves each 30 min: a kill loses them)",
            "",
        ),
    ];
    for (i, (what, more)) in sorts.into_iter().enumerate() {
        let measured = mosquitto(dir.path(), &format!("mosquitto-{i}"), more);
        rows.push(row(
            what,
            measured.unwrap_or_else(|| "not installed".into()),
        ));
    }
    rows
}
