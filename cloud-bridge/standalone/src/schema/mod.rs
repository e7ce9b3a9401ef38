//! What objects look like: one compact schema form for built-in kinds and custom
//! resources, and what is done with it (unknown fields, types, pruning, defaults,
//! validation, OpenAPI documents). Pure: no I/O, no clock.

pub mod builtin;
pub mod cause;
pub mod crd;
mod default;
mod format;
mod merge_rules;
pub mod node;
pub mod openapi;
mod parse;
mod prune;
pub mod strict;
mod structural;
#[cfg(test)]
mod tests;
pub(crate) mod types;
mod unknown;
mod validate;

pub use cause::{Cause, Reason, invalid_message};
pub use node::Schema;
pub use types::TypeMismatch;
