//! A process's life on the bus: connect, collections, own topics, inbox, health, shutdown.
//!
//! ```text
//!  Bus ── put, clear, send, publish_all ─► Flight ─┐
//!   ├─ collection ◄─ Coalesced (newest per topic) ─┤ Session ── Wire ── broker
//!   ├─ subscribe ◄── Fifo (bounded, then unacked) ─┘
//!   └─ inbox ◄────── Fifo (acked by the handler) ─── Session ── Wire ── broker
//! ```
//! A unit starts with [`unit::main`]; a visitor (command line, test) with [`Bus::connect`].
//! Everything mends itself: callers see a reconnect only as a new `Init` of a collection and as
//! messages that come a second time.

mod ask;
mod bus;
mod collection;
mod error;
mod flight;
mod inbox;
mod ledger;
pub mod log;
mod message;
mod options;
mod queue;
mod session;
mod subs;
mod time;
pub mod unit;
mod wire;

pub use bus::{Bus, Receipt, Subscription};
pub use collection::{Change, Collection, Event, Mirror, MirrorState};
pub use error::{Code, Error, Result};
pub use inbox::{Acknowledge, Delivery, Inbox};
pub use message::Message;
pub use options::{Address, ConnectOptions};
pub use session::Status;
pub use time::{now_rfc3339_ms, rfc3339_ms};

/// 16 random hexadecimal digits: for ids in payloads.
pub fn random_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    id[..16].to_owned()
}
