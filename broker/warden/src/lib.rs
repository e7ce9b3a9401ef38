//! `edgebus node`: parent and supervisor of the broker and every unit. It knows no MQTT.
//!
//! ```text
//!              grants (stdin), address (stdout)
//!   warden ───────────────────────────────────► broker
//!     │  welcome (stdin)                           ▲
//!     ├──────────────► link, edged, devicetwin ────┤ MQTT
//!     └─ describe, ──► mappers.d/* ────────────────┘
//!        welcome
//! ```
//! Tokens live in this process's memory, so they outlive the broker and every unit. The end of
//! standard input tells each child that the warden is gone.

mod board;
mod broker;
mod child;
mod clients;
mod config;
mod describe;
mod leftover;
mod policy;
mod run;
mod scan;
mod token;
mod unit;

pub use board::{NodeState, UnitState, UnitStatus};
pub use config::{Config, ConfigError, LinkMode, Paths};
pub use run::run;
