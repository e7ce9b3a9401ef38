//! What a node is told at start, and where everything of it lies.

use edgebus_bus::NodeName;
use std::path::{Path, PathBuf};

/// When the link is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkMode {
    /// Once this node is enrolled: [`Paths::enrolled`] exists.
    #[default]
    WhenEnrolled,
    /// Always.
    Always,
    /// Never: a node on its own.
    Never,
}

/// How one node is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node: NodeName,
    /// Folder that survives restarts.
    pub data_dir: PathBuf,
    /// Folder for sockets, tokens and state of this run; on a tmpfs, so that tokens never reach a
    /// disk.
    pub run_dir: PathBuf,
    /// The `edgebus` executable: broker and units are started from it.
    pub exe: PathBuf,
    /// Executables in here are mappers.
    pub mappers_d: PathBuf,
    /// `host:port` for MQTT over TCP; port 0 takes any free one, and keeps it.
    pub tcp: String,
    /// Admit clients without credentials as role `app` on that port.
    pub anonymous: bool,
    /// When the link is started.
    pub link: LinkMode,
    /// Units of ours to start beside the broker and the link.
    pub units: Vec<String>,
    /// More arguments for a unit of ours, by name (`broker` too).
    pub args: Vec<(String, Vec<String>)>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unix sockets have short names.
    #[error(
        "run_dir {run_dir:?} is too long: the socket {socket:?} would have {bytes} bytes, unix sockets allow 107"
    )]
    LongRunDir {
        /// The folder.
        run_dir: PathBuf,
        /// The socket.
        socket: PathBuf,
        /// Length of its name.
        bytes: usize,
    },
    /// Not an address.
    #[error("tcp {0:?} is not host:port, as in 127.0.0.1:1883")]
    BadTcp(String),
    /// No such unit.
    #[error("units: {0:?} is not one of edged, devicetwin")]
    NoSuchUnit(String),
    /// No executable.
    #[error("the edgebus executable {0:?} does not exist")]
    NoExe(PathBuf),
}

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Socket of the units: token needed.
    pub bus_socket: PathBuf,
    /// Socket of operators, in a folder of its own that only we and root enter.
    pub admin_socket: PathBuf,
    /// Socket of workloads.
    pub app_socket: PathBuf,
    /// [`NodeState`](crate::NodeState) as JSON.
    pub state: PathBuf,
    /// Ready-made settings for `mosquitto_sub` and `mosquitto_pub`, one folder per role:
    /// `XDG_CONFIG_HOME={clients}/viewer mosquitto_sub -t 'edge/v1/#' -v`.
    pub clients: PathBuf,
    /// The same for units in `mappers.d/`.
    pub unit_clients: PathBuf,
    /// Folder of the broker's store.
    pub broker_data: PathBuf,
    /// Held while a warden runs on this data_dir.
    pub lock: PathBuf,
    /// The same for this run_dir: of what runs under it another warden would think that it is
    /// left over.
    pub run_lock: PathBuf,
    /// Mappers that have been here: what one had retained is cleared once its file is gone.
    pub known: PathBuf,
    /// Exists once this node is enrolled.
    pub enrolled: PathBuf,
    /// Base64 of the private sealing key, for the units that open sealed objects.
    pub sealing_key: PathBuf,
}

impl Config {
    /// The defaults: a free TCP port on loopback, all units, mappers in `data_dir/mappers.d`.
    pub fn new(node: NodeName, data_dir: impl Into<PathBuf>, exe: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            node,
            run_dir: data_dir.join("run"),
            mappers_d: data_dir.join("mappers.d"),
            exe: exe.into(),
            tcp: "127.0.0.1:0".into(),
            anonymous: false,
            link: LinkMode::default(),
            units: vec!["edged".into(), "devicetwin".into()],
            args: vec![],
            data_dir,
        }
    }

    /// `/run/edgebus` for root, else a folder beside the data.
    pub fn default_run_dir(data_dir: &Path) -> PathBuf {
        if rustix::process::geteuid().is_root() {
            PathBuf::from("/run/edgebus")
        } else {
            data_dir.join("run")
        }
    }

    /// Where things lie.
    pub fn paths(&self) -> Paths {
        let (run, data) = (&self.run_dir, &self.data_dir);
        Paths {
            bus_socket: run.join("bus.sock"),
            admin_socket: run.join("admin/admin.sock"),
            app_socket: run.join("app/app.sock"),
            state: run.join("units.json"),
            clients: run.join("clients"),
            unit_clients: run.join("units"),
            broker_data: data.join("broker"),
            lock: data.join("node.lock"),
            run_lock: run.join("node.lock"),
            known: data.join("mappers.json"),
            enrolled: data.join("link/node.crt"),
            sealing_key: data.join("link/sealing.key"),
        }
    }

    /// Arguments that a unit gets besides its own name.
    pub(crate) fn args_of(&self, name: &str) -> Vec<String> {
        self.args
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, args)| args.clone())
            .collect()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let socket = self.paths().admin_socket;
        let bytes = socket.as_os_str().len();
        if bytes > 107 {
            return Err(ConfigError::LongRunDir {
                run_dir: self.run_dir.clone(),
                socket,
                bytes,
            });
        }
        let port = self.tcp.rsplit_once(':').map(|(_, p)| p.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            return Err(ConfigError::BadTcp(self.tcp.clone()));
        }
        if let Some(unit) = self
            .units
            .iter()
            .find(|u| !matches!(u.as_str(), "edged" | "devicetwin"))
        {
            return Err(ConfigError::NoSuchUnit(unit.clone()));
        }
        if !self.exe.exists() {
            return Err(ConfigError::NoExe(self.exe.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(NodeName::new("gw").unwrap(), "/data", "/bin/sh")
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value() {
        assert!(config().check().is_ok());
        let mut c = config();
        c.run_dir = PathBuf::from(format!("/{}", "x".repeat(100)));
        assert!(c.check().unwrap_err().to_string().contains("107"));
        let mut c = config();
        c.tcp = "localhost".into();
        assert!(c.check().unwrap_err().to_string().contains("\"localhost\""));
        let mut c = config();
        c.units = vec!["edgd".into()];
        assert!(c.check().unwrap_err().to_string().contains("\"edgd\""));
        let mut c = config();
        c.exe = "/nonexistent".into();
        assert!(c.check().is_err());
    }
}
