//! The EventBus: an MQTT front with a durable store over rumqttd's Router.
//!
//! ```text
//!  sockets ─► run ─► conn (one task per client) ─► store (one thread, SQLite) ─┐
//!                     ▲   ▲                  └──── not durable ───────────────►│
//!                     │   └── persistent sessions ◄── spine: route, acknowledge ◄┘
//!                     └────── everybody else ◄─────── router (rumqttd, disposable)
//! ```
//!
//! A publish is validated, committed if its topic is durable or a persistent session wants it,
//! routed, and only then acknowledged.

mod acl;
mod broker;
mod cli;
pub mod codec;
mod config;
mod conn;
mod counters;
mod grants;
mod message;
mod registry;
pub mod router;
mod run;
mod spine;
mod store;

pub use cli::{Args, broker_main};
pub use config::Config;
pub use counters::Totals;
pub use grants::read_lines;
pub use run::{Listeners, Probe, run, run_with_probe};
