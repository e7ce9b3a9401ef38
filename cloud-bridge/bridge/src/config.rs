//! What cloud-bridge is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use edgebus_linkproto::{Budgets, Timing};

/// Namespace for the enrolment CA, tokens and records, unless told otherwise.
pub const NAMESPACE: &str = "edgebus-system";
/// Port of the endpoint that nodes dial, unless told otherwise.
pub const PORT: u16 = 10350;

/// All of it has a default; [`Config::default`] is an in-cluster bridge.
#[derive(Debug, Clone)]
pub struct Config {
    /// None: the service account of the pod it runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Names and addresses by which nodes reach this endpoint: its certificate is for these.
    pub names: Vec<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` answer without TLS. None: nowhere.
    pub health: Option<SocketAddr>,
    /// Namespace for the CA, tokens and records.
    pub namespace: String,
    /// Namespaces whose ConfigMaps, ServiceAccounts, Devices and DeviceModels may go to nodes. Empty: all.
    pub object_namespaces: Vec<String>,
    /// Namespaces whose Secrets may go to nodes. Empty: all.
    pub secret_namespaces: Vec<String>,
    /// Install or refresh the device CRDs at start.
    pub install_crds: bool,
    /// Life of a node's certificate.
    pub cert_life: Duration,
    /// How long after its end a certificate may still be used to get the next one.
    pub grace: Duration,
    /// Shortest time between two writes of one device's status.
    pub status_interval: Duration,
    /// What each lane of a link may have in flight.
    pub budgets: Budgets,
    /// When a silent link counts as dead.
    pub timing: Timing,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            kubeconfig: None,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            health: None,
            namespace: NAMESPACE.to_owned(),
            object_namespaces: Vec::new(),
            secret_namespaces: Vec::new(),
            install_crds: true,
            cert_life: Duration::from_secs(365 * 24 * 3600),
            grace: Duration::from_secs(90 * 24 * 3600),
            status_interval: Duration::from_millis(50),
            budgets: Budgets::default(),
            timing: Timing::default(),
        }
    }
}
