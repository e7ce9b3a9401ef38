//! KubeEdge's device topics (`$hw/events/…`, `$ke/events/…`) and their payloads, as third-party
//! clients know them: addresses in both forms, requests read leniently, answers built exactly.
//!
//! Values are texts there and typed JSON on our own topics; [`value`] converts by property type.
//! Nothing here does I/O or looks at a clock.

mod address;
mod answer;
mod ask;
pub mod value;

pub use address::{Address, AddressError, Asked, Channel, membership_updated};
pub use answer::*;
pub use ask::*;
