//! The embedded Kubernetes API server on SQLite: what kubectl and Kubernetes clients need on
//! one machine with no cluster.
//!
//! ```text
//!  http ──► ops ──► store ──► SQLite
//!    │       │        │
//!    │       │        └─ committed changes ──► watches, controllers
//!    │       └─ registry (kinds), kinds (their particulars), schema, patch
//!    └─ auth, discovery, openapi, table
//! ```

mod auth;
mod config;
mod controllers;
mod convert;
mod error;
mod http;
mod kinds;
mod meta;
mod ops;
pub mod patch;
mod pki;
pub mod proto;
mod registry;
pub mod schema;
mod server;
mod store;
mod table;
mod time;
#[cfg(test)]
mod untrusted_tests;

pub use config::Config;
pub use server::{Server, run};
