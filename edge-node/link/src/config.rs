//! Where link keeps its things, and its few knobs.

use std::path::PathBuf;
use std::time::Duration;

use edgebus_linkproto::{Budgets, Timing};

/// Checked once, read by everybody.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that `join` filled: `node.key`, `node.crt`, `ca.crt`, `sealing.key`, `node.json`.
    pub dir: PathBuf,
    /// A folder for `link.db`.
    pub data_dir: PathBuf,
    pub spool: SpoolLimits,
    pub budgets: Budgets,
    pub timing: Timing,
    /// The longest pause between two attempts to reach the cloud, in an outage of more than ten minutes or
    /// after a refusal.
    pub retry_max: Duration,
    /// Connect, TLS and WebSocket handshake and the greeting together.
    pub dial_timeout: Duration,
}

/// Bounds of the spool of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    pub bytes: u64,
    pub age: Duration,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Config {
        Config {
            dir: dir.into(),
            data_dir: data_dir.into(),
            spool: SpoolLimits {
                bytes: 16 << 20,
                age: Duration::from_secs(7 * 24 * 3600),
            },
            budgets: Budgets::default(),
            timing: Timing::default(),
            retry_max: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(15),
        }
    }
}
