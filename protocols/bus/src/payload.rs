//! JSON payloads of the `edge/v1` topics. Unknown fields are ignored by readers; within v1 fields
//! are only added. Times are RFC 3339 in UTC with milliseconds unless a name ends in `_ms`.

mod device;
mod misfit;
mod system;
mod twin;

pub use device::*;
pub use misfit::{Misfit, PayloadError, read, read_object, read_value};
pub use system::*;
pub use twin::*;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Properties by name, sorted so that equal documents are equal bytes.
pub type Props<T> = BTreeMap<String, T>;
/// Free JSON object.
pub type Object = Map<String, Value>;

/// Which version of a desired state: compared for equality only, never for order, because a
/// rebuilt store starts a new `store` and counts from one again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Gen {
    /// Id of the store that counted.
    pub store: String,
    /// The count.
    pub n: u64,
}

/// Writes a payload.
pub fn write<T: Serialize>(value: &T) -> Vec<u8> {
    // All payload types have string keys and no failing Serialize: an error here is a bug.
    serde_json::to_vec(value).expect("payload types serialise")
}
