//! The edge end of the cloud link: one connection, dialled from here, that carries the difference between
//! what the cloud wants and what the bus holds, and back up what this node has to say.
//!
//! ```text
//! bus ── twins, status, beat ──► Session ── frames ──► WebSocket, TLS 1.3, both sides known ──► cloud-bridge
//! bus ◄─ obj, sealed, spec ───── (protocols/link) ◄─────────────────────────────────────────────┘
//! bus ── event inbox ──► link.db (spool) ──┘
//! ```
//! [`join`] makes the identity that [`run`] uses; [`reset`] takes it away.

mod backoff;
mod config;
mod dial;
mod files;
mod http;
mod identity;
mod join;
mod line;
mod mirror;
mod network;
mod renew;
mod run;
mod spool;
mod state;
mod tls;
mod uplink;

pub use config::{Config, SpoolLimits};
pub use files::{FilesError, Pinned};
pub use identity::{CertInfo, Identity, IdentityError};
pub use join::{JoinError, JoinSpec, join, reset};
pub use run::run;
pub use spool::SpoolError;
