//! What everybody may know of a node's processes: kept here, written to `units.json`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{fs, io};
use tokio::sync::Notify;

/// How a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitStatus {
    /// Its process runs, and has not said `up` (third-party units need not).
    #[default]
    Running,
    /// It said that it is connected and at work.
    Up,
    /// It has ended and is started again soon.
    Waiting,
    /// It keeps failing and is tried rarely.
    Degraded,
    /// It ended with exit code 64: its file or configuration has to change.
    BadConfig,
    /// Its file cannot be a unit; `why` says so.
    Refused,
    /// It was told to end.
    Stopped,
}

/// One unit, the broker included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnitState {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: UnitStatus,
    /// Its process, which leads a process group; none when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Start time of that process in clock ticks since boot: with the pid it names one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ticks: Option<u64>,
    /// How often it has been started again.
    #[serde(default)]
    pub restarts: u64,
    /// Its executable.
    pub exe: String,
    /// How it last ended, or why it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `units.json`. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeState {
    /// Name of the node.
    pub node: String,
    /// Process id of the warden.
    pub pid: u32,
    /// The kernel's id of this boot: process ids and ticks of another one mean nothing.
    #[serde(default)]
    pub boot_id: String,
    /// `host:port` of MQTT over TCP; empty until the broker has said it.
    #[serde(default)]
    pub tcp: String,
    /// Socket of the units.
    pub bus_socket: String,
    /// Socket of operators.
    pub admin_socket: String,
    /// Socket of workloads.
    pub app_socket: String,
    /// Folder of ready-made `mosquitto_sub` settings.
    pub clients: String,
    /// All units by name.
    pub units: BTreeMap<String, UnitState>,
}

impl NodeState {
    /// Reads `units.json`.
    pub fn load(path: &Path) -> io::Result<Self> {
        let text = fs::read(path)?;
        serde_json::from_slice(&text)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{path:?}: {e}")))
    }
}

/// The state, and who waits for its changes.
pub(crate) struct Board {
    state: Mutex<NodeState>,
    pub changed: Notify,
}

impl Board {
    pub fn new(state: NodeState) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut NodeState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    pub fn unit(&self, name: &str, change: impl FnOnce(&mut UnitState)) {
        self.change(|node| {
            let unit = node.units.entry(name.to_owned()).or_default();
            unit.name = name.to_owned();
            change(unit);
        });
    }

    pub fn get(&self) -> NodeState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Whole or not at all: readers poll this file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.get())?;
        let new = path.with_extension("json.new");
        fs::write(&new, text)?;
        fs::rename(&new, path)
    }
}
