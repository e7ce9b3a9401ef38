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
//!
//! Where MQTT leaves a choice:
//! - What a client may not publish: MQTT 5 gets a PUBACK with the reason. MQTT 3.1.1 has no way to
//!   be told, so its message is acknowledged and dropped, as other brokers do; in both versions
//!   the author finds the reason on `sys/{name}/refused`.
//! - What cannot be taken now (disk full, inbox full): MQTT 5 gets "quota exceeded"; MQTT 3.1.1
//!   gets no PUBACK and the end of its connection, so that it sends the message again.
//! - QoS 2 is not served: SUBACK grants at most 1, a QoS 2 publish ends the connection.
//! - An inbox takes QoS 0 messages too, and delivers all at QoS 1.
//! - Client ids are the name's own: two names may use the same one.

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
