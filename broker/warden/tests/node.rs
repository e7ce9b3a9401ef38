//! A whole node of real processes: the broker and the units are shell scripts here, for the warden
//! cannot tell them from ours.

#![allow(clippy::unwrap_used)]

use edgebus_bus::NodeName;
use edgebus_warden::{Config, LinkMode, NodeState, UnitStatus};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

/// Plays all parts of `edgebus`: the broker says its port and writes down its grants; a unit writes
/// down its welcome.
const EXE: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/started"
case "$1" in
broker)
    echo '{"tcp":"127.0.0.1:18830"}'
    while read -r line; do echo "$line" >> "$here/grants"; done ;;
*)
    read -r line
    echo "$line" > "$here/welcome.$1"
    echo '{"up":true}'
    while read -r line; do :; done ;;
esac
"#;

struct Gateway {
    dir: tempfile::TempDir,
    config: Config,
    stop: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Gateway {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let exe = write_script(&dir.path().join("edgebus"), EXE);
        let mut config = Config::new(NodeName::new("gw").unwrap(), dir.path().join("data"), exe);
        config.link = LinkMode::WhenEnrolled;
        fs::create_dir_all(&config.mappers_d).unwrap();
        Self {
            dir,
            config,
            stop: CancellationToken::new(),
            task: None,
        }
    }

    fn start(&mut self) {
        self.stop = CancellationToken::new();
        let run = edgebus_warden::run(self.config.clone(), self.stop.clone());
        self.task = Some(tokio::spawn(run));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    fn mapper(&self, file: &str, body: &str) -> PathBuf {
        let describe = r#"[ "$1" = describe ] && { echo '{"protocol":"p","api":1}'; exit 0; }"#;
        // As an installer does it: whole or not at all.
        let new = self.config.mappers_d.join(".new");
        write_script(&new, &format!("#!/bin/sh\n{describe}\n{body}\n"));
        let path = self.config.mappers_d.join(file);
        fs::rename(new, &path).unwrap();
        path
    }

    fn state(&self) -> NodeState {
        NodeState::load(&self.config.paths().state).unwrap_or_default()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    async fn until(&self, what: &str, holds: impl Fn(&NodeState) -> bool) -> NodeState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            if holds(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "never {what}: {state:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn up(&self, unit: &str) -> u32 {
        let state = self
            .until(&format!("{unit} up"), |s| is(s, unit, UnitStatus::Up))
            .await;
        state.units[unit].pid.unwrap()
    }
}

fn write_script(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

fn is(state: &NodeState, unit: &str, status: UnitStatus) -> bool {
    state.units.get(unit).is_some_and(|u| u.state == status)
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat
        .rsplit_once(')')
        .is_some_and(|(_, s)| s.starts_with(" Z"));
    test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok() && !zombie
}

const MAPPER: &str = r#"read -r w; echo "$w" > welcome; cp "$XDG_CONFIG_HOME/mosquitto_pub" options; env > env; echo '{"up":true}'; sleep 1000 & wait"#;

#[tokio::test]
async fn a_node_starts_its_units_with_a_welcome_and_ends_them_all() {
    let mut gw = Gateway::new();
    gw.start();
    let pids = [
        gw.up("broker").await,
        gw.up("edged").await,
        gw.up("devicetwin").await,
    ];
    let welcome: serde_json::Value = serde_json::from_str(&gw.text("welcome.edged")).unwrap();
    assert_eq!(welcome["role"], "edged");
    assert_eq!(welcome["tcp"], "127.0.0.1:18830");
    let grants = gw.text("grants");
    assert!(
        grants.contains(welcome["token"].as_str().unwrap()),
        "{grants}"
    );
    assert!(grants.contains(r#""do":"ready""#), "{grants}");
    assert!(!gw.state().units.contains_key("link"));
    let viewer = gw.config.paths().clients.join("viewer/mosquitto_sub");
    assert!(fs::read_to_string(&viewer).unwrap().contains("-p 18830"));
    gw.stop().await;
    assert!(pids.into_iter().all(|pid| !lives(pid)));
    assert!(!viewer.exists());
}

#[tokio::test]
async fn a_stopped_node_leaves_no_socket_and_what_it_made_is_its_owners() {
    let mut gw = Gateway::new();
    let script = EXE.replace(
        "broker)",
        "broker)\n    : > \"$5/bus.sock\"; : > \"$3.made\"",
    );
    write_script(&gw.config.exe, &script);
    gw.start();
    gw.up("edged").await;
    let paths = gw.config.paths();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&gw.config.run_dir), 0o750);
    assert_eq!(mode(&gw.config.data_dir), 0o700);
    assert_eq!(mode(&paths.clients), 0o700);
    assert_eq!(mode(&gw.config.data_dir.join("broker.made")), 0o600);
    assert!(paths.bus_socket.exists() && paths.state.exists());
    gw.stop().await;
    for gone in [&paths.bus_socket, &paths.state, &paths.clients] {
        assert!(!gone.exists(), "{gone:?} is left behind");
    }
}

#[tokio::test]
async fn a_broker_that_hangs_is_started_anew_and_units_go_on() {
    let mut gw = Gateway::new();
    let script = EXE.replace(
        r#"    echo '{"tcp":"127.0.0.1:18830"}'"#,
        r#"    echo '{"tcp":"127.0.0.1:18830","up":true,"again_ms":50}'
    while :; do echo '{"up":true,"again_ms":50}'; sleep 0.02; done"#,
    );
    write_script(&gw.config.exe, &script);
    gw.start();
    let (broker, edged) = (gw.up("broker").await, gw.up("edged").await);
    kill_process(Pid::from_raw(broker as i32).unwrap(), Signal::STOP).unwrap();
    let state = gw
        .until("started anew", |s| {
            is(s, "broker", UnitStatus::Up) && s.units["broker"].pid != Some(broker)
        })
        .await;
    assert!(!lives(broker));
    assert_eq!(state.units["broker"].restarts, 1);
    assert_eq!(state.units["edged"].pid, Some(edged));
    gw.stop().await;
}

#[tokio::test]
async fn whoever_is_killed_is_back_and_tokens_outlive_the_broker() {
    let mut gw = Gateway::new();
    gw.start();
    for round in 1..=8 {
        for unit in ["broker", "edged", "devicetwin"] {
            let pid = gw.up(unit).await;
            kill(pid);
            gw.until("started again", |s| {
                s.units[unit].restarts >= round && s.units[unit].state == UnitStatus::Up
            })
            .await;
        }
    }
    let tokens = |text: String| {
        let mut all: Vec<_> = text
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
            .filter_map(|v| Some(v["token"].as_str()?.to_owned()))
            .collect();
        all.sort();
        all.dedup();
        all.len()
    };
    // viewer, app, link, edged, devicetwin: each the same for all nine brokers.
    assert_eq!(tokens(gw.text("grants")), 5);
    assert!(gw.text("started").contains("--tcp 127.0.0.1:18830"));
    gw.stop().await;
}

#[tokio::test]
async fn an_executable_dropped_in_becomes_a_mapper_and_ends_when_it_is_removed() {
    let mut gw = Gateway::new();
    gw.start();
    gw.up("broker").await;
    let file = gw.mapper("thermo.sh", MAPPER);
    let pid = gw.up("thermo").await;
    let home = gw.config.data_dir.join("mappers/thermo");
    let read = |f: &str| fs::read_to_string(home.join(f)).unwrap();
    let welcome: serde_json::Value = serde_json::from_str(&read("welcome")).unwrap();
    let token = welcome["token"].as_str().unwrap();
    assert_eq!(welcome["role"], "mapper");
    assert!(read("options").contains(&format!("-u thermo\n-P {token}")));
    assert!(read("env").contains("EDGEBUS_NAME=thermo"));
    assert!(!read("env").contains(token));

    gw.mapper("thermo.sh", &format!("echo two > second; {MAPPER}"));
    gw.until("replaced", |s| {
        is(s, "thermo", UnitStatus::Up) && s.units["thermo"].pid != Some(pid)
    })
    .await;
    assert!(!lives(pid));
    assert_eq!(read("second"), "two\n");

    fs::remove_file(file).unwrap();
    gw.until("gone", |s| !s.units.contains_key("thermo")).await;
    let deadline = Instant::now() + PATIENCE;
    while !gw
        .text("grants")
        .contains(r#"{"do":"forget","name":"thermo"}"#)
    {
        assert!(Instant::now() < deadline, "{}", gw.text("grants"));
        sleep(Duration::from_millis(20)).await;
    }
    gw.stop().await;
}

#[tokio::test]
async fn bad_configuration_waits_for_another_file_and_says_so() {
    let mut gw = Gateway::new();
    gw.mapper("odd.sh", "exit 64");
    gw.mapper("silly.sh", "exit 0");
    fs::write(
        gw.config.mappers_d.join("silly.sh"),
        "#!/bin/sh\necho hello\n",
    )
    .unwrap();
    gw.start();
    gw.until("bad config", |s| is(s, "odd", UnitStatus::BadConfig))
        .await;
    let state = gw
        .until("refused", |s| is(s, "silly", UnitStatus::Refused))
        .await;
    let why = state.units["silly"].why.clone().unwrap();
    assert!(why.contains("JSON object"), "{why}");
    gw.mapper("odd.sh", MAPPER);
    gw.up("odd").await;
    gw.stop().await;
}

/// Not a test: the process that the next one kills.
#[tokio::test]
#[ignore = "started by what_a_killed_warden_left_running_is_ended_first"]
async fn warden_process() {
    let Ok(dir) = std::env::var("WARDEN_TEST_DIR").map(PathBuf::from) else {
        return;
    };
    let node = NodeName::new("gw").unwrap();
    let config = Config::new(node, dir.join("data"), dir.join("edgebus"));
    let stop = CancellationToken::new();
    edgebus_warden::run(config, stop).await.unwrap();
}

#[tokio::test]
async fn what_a_killed_warden_left_running_is_ended_first() {
    let mut gw = Gateway::new();
    // Ignores the end of its input, and has a child that outlives it.
    gw.mapper(
        "stubborn.sh",
        r#"sleep 1000 >/dev/null 2>&1 & echo $! > child; echo '{"up":true}'; exec sleep 1000 >/dev/null 2>&1"#,
    );
    let mut warden = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "warden_process"])
        .env("WARDEN_TEST_DIR", gw.dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = gw.up("stubborn").await;
    let units = [gw.up("broker").await, gw.up("edged").await];
    let child = gw.config.data_dir.join("mappers/stubborn/child");
    let child: u32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    warden.kill().unwrap();
    warden.wait().unwrap();
    // Its leader gone, this one is only found by the mark in its environment.
    kill(pid);
    assert!(lives(child));
    gw.start();
    gw.until("started anew", |s| {
        is(s, "stubborn", UnitStatus::Up) && s.units["stubborn"].pid != Some(pid)
    })
    .await;
    assert!(!lives(child));
    assert!(units.into_iter().all(|pid| !lives(pid)));
    gw.stop().await;
}

#[tokio::test]
async fn a_unit_that_breaks_its_promise_to_speak_is_started_anew() {
    let mut gw = Gateway::new();
    gw.mapper(
        "mute.sh",
        r#"while [ ! -e quiet ]; do echo '{"up":true,"again_ms":50}'; sleep 0.02; done; rm quiet; sleep 1000"#,
    );
    gw.start();
    let pid = gw.up("mute").await;
    fs::write(gw.config.data_dir.join("mappers/mute/quiet"), "").unwrap();
    let state = gw
        .until("started anew", |s| {
            is(s, "mute", UnitStatus::Up) && s.units["mute"].pid != Some(pid)
        })
        .await;
    assert!(!lives(pid));
    assert_eq!(state.units["mute"].restarts, 1);
    gw.stop().await;
}

#[tokio::test]
async fn the_link_runs_while_the_node_is_enrolled_and_a_second_warden_is_refused() {
    let mut gw = Gateway::new();
    gw.start();
    gw.up("broker").await;
    let second = edgebus_warden::run(gw.config.clone(), CancellationToken::new()).await;
    let said = second.unwrap_err().to_string();
    assert!(said.contains("another `edgebus node`"), "{said}");
    let mut other = gw.config.clone();
    other.data_dir = gw.dir.path().join("other");
    let third = edgebus_warden::run(other, CancellationToken::new()).await;
    let said = third.unwrap_err().to_string();
    assert!(said.contains("run/node.lock"), "{said}");
    let cert = gw.config.paths().enrolled;
    fs::create_dir_all(cert.parent().unwrap()).unwrap();
    fs::write(&cert, "").unwrap();
    let pid = gw.up("link").await;
    fs::remove_file(&cert).unwrap();
    gw.until("ended", |s| !is(s, "link", UnitStatus::Up)).await;
    assert!(!lives(pid));
    gw.stop().await;
}

#[tokio::test]
async fn what_was_removed_while_no_warden_ran_is_forgotten_too() {
    let mut gw = Gateway::new();
    let file = gw.mapper("gone.sh", MAPPER);
    gw.start();
    gw.up("gone").await;
    gw.stop().await;
    fs::remove_file(file).unwrap();
    gw.start();
    gw.up("broker").await;
    let deadline = Instant::now() + PATIENCE;
    while !gw
        .text("grants")
        .contains(r#"{"do":"forget","name":"gone"}"#)
    {
        assert!(Instant::now() < deadline, "{}", gw.text("grants"));
        sleep(Duration::from_millis(20)).await;
    }
    gw.stop().await;
}
