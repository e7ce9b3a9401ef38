//! What a broker is told at start. Everything has a default that suits a gateway.

use std::path::PathBuf;
use std::time::Duration;

use edgebus_bus::limits;

/// How one broker is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of `bus.db`.
    pub data_dir: PathBuf,
    /// Whether clients without credentials are admitted as role `app` on TCP loopback.
    pub anonymous_tcp: bool,
    /// Most clients at a time.
    pub max_connections: usize,
    /// Most connections that have not yet sent their CONNECT.
    pub max_unknown: usize,
    /// How long a connection may take to send its CONNECT.
    pub connect_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// Bounds of what waits for one connected client.
    pub queue_messages: usize,
    /// The same in bytes.
    pub queue_bytes: usize,
    /// Bounds of what waits on disk for one persistent session that is no inbox.
    pub session_messages: usize,
    /// The same in bytes.
    pub session_bytes: usize,
    /// Persistent sessions of one name.
    pub sessions_per_name: usize,
    /// Longest time that an absent session is kept; also for MQTT 3.1.1, which asks for ever.
    pub session_expiry_max: Duration,
    /// Unacknowledged QoS 1 messages in each direction of one connection.
    pub in_flight: u16,
    /// Largest `bus.db`; publishers of durable topics are refused beyond it.
    pub store_bytes: u64,
    /// All retained messages under `app/`.
    pub app_retained_bytes: usize,
    /// Bounds of an inbox.
    pub inbox_messages: usize,
    /// The same in bytes.
    pub inbox_bytes: usize,
    /// Longest time from a `lazy` commit to its fsync.
    pub lazy_sync: Duration,
}

impl Config {
    /// The defaults, with the store in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            anonymous_tcp: false,
            max_connections: 1024,
            max_unknown: 64,
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            queue_messages: 4096,
            queue_bytes: 8 * 1024 * 1024,
            session_messages: 10_000,
            session_bytes: 16 * 1024 * 1024,
            sessions_per_name: 64,
            session_expiry_max: Duration::from_secs(7 * 24 * 3600),
            in_flight: 64,
            store_bytes: 1024 * 1024 * 1024,
            app_retained_bytes: limits::APP_RETAINED_BYTES,
            inbox_messages: limits::INBOX_MESSAGES,
            inbox_bytes: limits::INBOX_BYTES,
            lazy_sync: Duration::from_secs(1),
        }
    }
}
