//! The embedded Kubernetes API server on SQLite.

pub mod patch;
pub mod proto;
pub mod schema;
