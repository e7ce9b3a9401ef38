//! What is measured: a control plane and a node with one mapper.
//!
//! The node and cloud-bridge each run from a copy of the executable of their own, so that their memory
//! is what it is on a machine of their own: one file would be shared with the control plane beside them.

use crate::proxy::Proxy;
use edgebus_tests::api::Kube;
use edgebus_tests::run::{Proc, edge_edgebus, edgebus};
use edgebus_tests::{Cloud, Node, eventually};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Name of the node.
pub const NODE: &str = "bench";
/// All processes of the edge.
pub const UNITS: [&str; 5] = ["broker", "link", "edged", "devicetwin", "modbus"];

/// A running pair.
pub struct Stand {
    pub node: Node,
    pub cloud: Cloud,
    pub kube: Kube,
    pub dir: TempDir,
    bridge_exe: PathBuf,
}

/// A copy of an executable: another file, hence pages of its own.
fn copy(exe: &Path, dir: &Path, name: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a copy");
    let copy = folder.join("edgebus");
    std::fs::copy(exe, &copy).expect("the executable can be copied");
    copy
}

/// A node that is not started yet, with the Modbus mapper alone.
fn fresh(dir: &Path, name: &str) -> Node {
    let node = Node::new(dir, name);
    let exe = copy(&edge_edgebus(), dir, &format!("{name}-bin"));
    for mapper in ["modbus", "virtual"] {
        std::fs::remove_file(node.mappers_dir().join(mapper)).expect("the link is there");
    }
    std::os::unix::fs::symlink(exe, node.mappers_dir().join("modbus"))
        .expect("a mapper can be linked");
    node
}

impl Stand {
    /// Control plane alone; see [`join`](Self::join) and [`begin`](Self::begin).
    pub fn cloud() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let bridge_exe = copy(&edgebus(), dir.path(), "bridge-bin");
        let mut cloud = Cloud::start(dir.path());
        cloud.cut();
        let kube = Kube::new(&cloud);
        let node = fresh(dir.path(), NODE);
        let mut stand = Self {
            node,
            cloud,
            kube,
            dir,
            bridge_exe,
        };
        stand.bridge();
        stand
    }

    /// With a node that is Ready, its link through `proxy` if there is one.
    pub fn start(proxy: Option<&Proxy>) -> Self {
        let mut stand = Self::cloud();
        let port = stand.cloud.bridge_port;
        if let Some(proxy) = proxy {
            proxy.to(port);
            stand.cloud.bridge_port = proxy.port;
        }
        stand.node.join(&stand.cloud);
        stand.cloud.bridge_port = port;
        stand.begin();
        eventually("every unit is up", || {
            let state = stand.node.state()?;
            let down: Vec<_> = UNITS
                .iter()
                .filter(|u| {
                    state["units"][**u]["state"] != "up"
                        && state["units"][**u]["state"] != "running"
                })
                .collect();
            if down.is_empty() {
                Ok(())
            } else {
                Err(format!("{down:?}"))
            }
        });
        eventually("the node is Ready", || stand.kube.node_ready(NODE));
        stand
    }

    /// Another node in this one's place, not joined yet.
    pub fn new_node(&mut self, name: &str) {
        self.node = fresh(self.dir.path(), name);
    }

    /// Starts the node; does not wait.
    pub fn begin(&mut self) {
        let node = &mut self.node;
        let mut command = Command::new(self.dir.path().join(format!("{}-bin/edgebus", node.name)));
        command
            .arg("node")
            .args(["--node", &node.name, "--mqtt", "127.0.0.1:0"]);
        command
            .arg("--data-dir")
            .arg(node.data_dir())
            .arg("--run-dir")
            .arg(node.run_dir());
        command.arg("--mappers-dir").arg(node.mappers_dir());
        node.warden = Some(Proc::start("node", &node.dir, command));
    }

    /// Starts cloud-bridge; does not wait.
    pub fn bridge(&mut self) {
        let mut command = Command::new(&self.bridge_exe);
        command
            .arg("cloud-bridge")
            .arg("--kubeconfig")
            .arg(self.cloud.kubeconfig());
        command.args(["--listen", &format!("127.0.0.1:{}", self.cloud.bridge_port)]);
        self.cloud.bridge = Some(Proc::start("cloud-bridge", &self.cloud.dir, command));
    }

    /// The edge's processes: name and process id, the warden first.
    pub fn pids(&self) -> Vec<(&'static str, u32)> {
        let warden = self.node.warden.as_ref().map_or(0, |w| w.pid());
        let unit =
            |name: &&'static str| (*name, eventually("the unit runs", || self.node.pid(name)));
        std::iter::once(("warden", warden))
            .chain(UNITS.iter().map(unit))
            .collect()
    }
}
