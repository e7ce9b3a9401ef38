//! What `edgebus node` and its children say to each other, outside the bus: how a unit introduces
//! itself (`describe`), what it is given on standard input (`Welcome`), and what the broker is told
//! about tokens over an inherited pipe (`Grant`).

use crate::role::{Identity, Role};
use serde::{Deserialize, Serialize};

/// Printed by `<executable> describe`: one JSON object on standard output, within 2 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe {
    /// Protocol served: `modbus`, …
    pub protocol: String,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Version of the mapper contract: 1.
    pub api: u32,
    /// Seconds between heartbeats on `sys/{c}/health`, if the mapper wants to be watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u32>,
}

/// The first line on a unit's standard input. The end of standard input means that the parent is
/// gone: the unit stops.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its name: user name and client id on the bus (`{name}` or `{name}.*`).
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its password on the bus.
    pub token: String,
    /// Path of the bus's unix socket for units.
    pub socket: String,
    /// `host:port` of the bus on TCP loopback, for clients that know no unix sockets.
    pub tcp: String,
    /// Name of the node.
    pub node: String,
    /// A folder of its own that survives restarts.
    pub data_dir: String,
    /// Base64 of the node's private sealing key; only for roles that open sealed topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<String>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// One line from the warden to the broker: a token now valid, or no longer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Grant {
    /// This token belongs to this identity. A new token for a name replaces the old one.
    Allow {
        /// Whose it is.
        identity: Identity,
        /// The token itself; the pipe is private to the two processes.
        token: String,
    },
    /// This name is gone for good: end its connections and clear what it had retained.
    Forget {
        /// The name.
        name: String,
    },
    /// All tokens known now have been sent: start to listen.
    Ready,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Grant::Allow { identity, .. } => f
                .debug_struct("Allow")
                .field("identity", identity)
                .finish_non_exhaustive(),
            Grant::Forget { name } => f.debug_struct("Forget").field("name", name).finish(),
            Grant::Ready => f.write_str("Ready"),
        }
    }
}

/// Exit code of a unit whose configuration is wrong (sysexits.h EX_USAGE): not restarted until its
/// file changes.
pub const EXIT_CONFIG: i32 = 64;
