//! The bus contract: what every process on an edge node may say, to whom, and what survives.
//!
//! [`topic::Topic`] and [`table::TABLE`] come from one declaration; building, parsing, access
//! rules, durability, `edgebus explain` and the reference page are all read from it. Nothing here
//! does I/O or looks at a clock.

pub mod explain;
pub mod filter;
pub mod limits;
pub mod name;
pub mod payload;
pub mod role;
pub mod table;
pub mod topic;
pub mod unit;

pub use name::{DeviceId, Name, NameError, NodeName, Scope, Slot, Word};
pub use role::{Identity, Role};
pub use table::{Durability, Row, TABLE, lookup};
pub use topic::{ROOT, Topic};
