//! An edge node: `edgebus node` and what it started.

use crate::cloud::Cloud;
use crate::run::{Proc, edgebus, eventually, output, send};
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A node of one test.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// `edgebus node`.
    pub warden: Option<Proc>,
}

impl Node {
    /// A node that is not started yet. Our mappers stand in its `mappers.d/`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let node = Self {
            name: name.to_owned(),
            dir: dir.join(name),
            warden: None,
        };
        std::fs::create_dir_all(node.mappers_dir()).expect("a folder for the node");
        for mapper in ["modbus", "virtual"] {
            let link = node.mappers_dir().join(mapper);
            std::os::unix::fs::symlink(edgebus(), link).expect("a mapper can be linked");
        }
        node
    }

    /// A started node that belongs to no cloud.
    pub fn alone(dir: &Path, name: &str) -> Self {
        let mut node = Self::new(dir, name);
        node.start();
        node
    }

    /// A started node that has joined.
    pub fn joined(dir: &Path, name: &str, cloud: &Cloud) -> Self {
        let mut node = Self::new(dir, name);
        node.join(cloud);
        node.start();
        node
    }

    /// `edgebus join`.
    #[track_caller]
    pub fn join(&self, cloud: &Cloud) {
        let (code, said) = self.join_code(cloud, &cloud.token(Some(&self.name)));
        assert_eq!(code, 0, "join: {said}");
    }

    /// `edgebus join` with a token of one's own: exit code and what it said.
    pub fn join_code(&self, cloud: &Cloud, token: &Path) -> (i32, String) {
        let mut command = Command::new(edgebus());
        command.args([
            "join",
            "--server",
            &format!("127.0.0.1:{}", cloud.bridge_port),
            "--node",
            &self.name,
        ]);
        command
            .arg("--token-file")
            .arg(token)
            .arg("--data-dir")
            .arg(self.data_dir());
        let (code, out, err) = output(command, Duration::from_secs(30));
        (code, out + &err)
    }

    /// Starts the warden and waits for its units.
    pub fn start(&mut self) {
        let mut command = Command::new(edgebus());
        command
            .arg("node")
            .args(["--node", &self.name, "--mqtt", "127.0.0.1:0"]);
        command
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir());
        command.arg("--mappers-dir").arg(self.mappers_dir());
        // A state file of an earlier warden must not be taken for this one's.
        drop(std::fs::remove_file(self.run_dir().join("units.json")));
        self.warden = Some(Proc::start("node", &self.dir, command));
        eventually("every unit is up", || {
            let state = self.state()?;
            let units = state["units"].as_object().cloned().unwrap_or_default();
            let down: Vec<_> = ["broker", "edged", "devicetwin", "modbus", "virtual"]
                .iter()
                .filter(|u| {
                    units
                        .get(**u)
                        .is_none_or(|s| s["state"] != "up" && s["state"] != "running")
                })
                .collect();
            if down.is_empty() && self.tcp_port() != 0 {
                Ok(())
            } else {
                Err(format!("not up: {down:?}"))
            }
        });
    }

    /// Survives a reboot.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Sockets and state.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where mappers are dropped.
    pub fn mappers_dir(&self) -> PathBuf {
        self.dir.join("mappers.d")
    }

    /// `units.json`.
    pub fn state(&self) -> Result<Value, String> {
        let text = std::fs::read_to_string(self.run_dir().join("units.json"))
            .map_err(|e| format!("units.json: {e}"))?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    /// Port of MQTT over TCP; 0 = not known yet.
    pub fn tcp_port(&self) -> u16 {
        let tcp = self
            .state()
            .ok()
            .and_then(|s| s["tcp"].as_str().map(str::to_owned))
            .unwrap_or_default();
        tcp.rsplit(':')
            .next()
            .and_then(|p| p.parse().ok())
            .unwrap_or(0)
    }

    /// Process of a unit.
    pub fn pid(&self, unit: &str) -> Result<u32, String> {
        let state = self.state()?;
        let pid = state["units"][unit]["pid"]
            .as_u64()
            .and_then(|p| u32::try_from(p).ok());
        pid.ok_or_else(|| format!("{unit} has no process: {}", state["units"][unit]))
    }

    /// `kill -9` of a unit; waits until it has another process.
    pub fn kill_unit(&self, unit: &str) {
        let before = eventually(&format!("{unit} runs"), || self.pid(unit));
        send(before, Signal::KILL);
        eventually(&format!("{unit} is back by itself"), || {
            match self.pid(unit) {
                Ok(pid) if pid != before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// `kill -9` of everything on this node.
    pub fn kill_all(&mut self) {
        let pids: Vec<u32> = self.pids();
        if let Some(mut warden) = self.warden.take() {
            warden.kill();
        }
        pids.iter().for_each(|pid| send(*pid, Signal::KILL));
    }

    /// Processes of all units.
    pub fn pids(&self) -> Vec<u32> {
        let units = self
            .state()
            .ok()
            .and_then(|s| s["units"].as_object().cloned())
            .unwrap_or_default();
        units
            .values()
            .filter_map(|u| u["pid"].as_u64())
            .filter_map(|p| u32::try_from(p).ok())
            .collect()
    }

    /// `edgebus` with this node's folder: exit code, standard output, standard error.
    pub fn edgebus(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(edgebus());
        command.args(args).env("EDGEBUS_RUN_DIR", self.run_dir());
        output(command, Duration::from_secs(30))
    }

    /// A retained JSON document on the bus.
    pub fn retained(&self, topic: &str) -> Result<Value, String> {
        let (code, out, err) = self.edgebus(&["sub", "--retained-only", "--quiet", topic]);
        if code != 0 {
            return Err(err);
        }
        match out.lines().next() {
            Some(line) => serde_json::from_str(line).map_err(|e| format!("{e}: {line}")),
            None => Err(format!("nothing is retained on {topic}")),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut warden) = self.warden.take() {
            if !std::thread::panicking() {
                warden.signal(Signal::TERM);
                let end = std::time::Instant::now() + Duration::from_secs(8);
                while std::time::Instant::now() < end
                    && warden.child.try_wait().is_ok_and(|s| s.is_none())
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            drop(warden);
        }
        self.pids()
            .into_iter()
            .for_each(|pid| send(pid, Signal::KILL));
    }
}
