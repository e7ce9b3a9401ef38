//! What the caller decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one server. `Config::new` has every default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Database and certificates; made if it is not there.
    pub data_dir: PathBuf,
    /// Where callers bind the listener; [`crate::run`] takes the bound one.
    pub listen: SocketAddr,
    /// Further names and addresses in the serving certificate.
    pub sans: Vec<String>,
    /// Where the administrator's kubeconfig is written, whatever was there before;
    /// `None` = `data_dir/kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// A node whose lease was not renewed for so long is not ready.
    pub node_grace: Duration,
    /// How long Events are kept.
    pub event_ttl: Duration,
}

impl Config {
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 6443)),
            sans: Vec::new(),
            kubeconfig: None,
            node_grace: Duration::from_secs(40),
            event_ttl: Duration::from_secs(3600),
        }
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.kubeconfig
            .clone()
            .unwrap_or_else(|| self.data_dir.join("kubeconfig"))
    }
}
