//! Device twins: what devices should be and what they are, who serves them, and KubeEdge's `$hw`
//! topics over the same state.
//!
//! ```text
//!  obj/device, obj/devicemodel ──►┐               ┌──► dev/{m}/…/config, want   (mapper m)
//!  mapper/+/hello, sys/+/health ─►│  core::Core   ├──► twin/…, twin/…/desired   (all)
//!  dev/…/state, dev/…/report ────►│  (pure, keeps ├──► event/devicetwin         (link)
//!  twin/…/set, twin/…/call ──────►│   no files)   ├──► …/set/done, …/call/done
//!  $hw/events/… ─────────────────►┘               └──► $hw/…/result, document, delta
//! ```
//!
//! Everything on the right is a function of what is on the left and of its own retained topics, so
//! a restart reads all of it and carries on; a message of the inbox is acknowledged after what
//! followed from it is.

mod assign;
mod condition;
pub mod core;
mod desired;
mod device;
pub mod intake;
mod kubeedge;
mod losses;
mod merged;
mod reply;
mod run;
mod settle;
mod table;
mod time;

pub use crate::core::{Core, Input, Out};
pub use crate::time::Now;
pub use run::{Config, Error, run};
