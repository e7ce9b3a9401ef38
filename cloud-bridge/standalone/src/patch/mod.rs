//! The four ways a Kubernetes client changes a part of an object: JSON patch, merge patch,
//! strategic merge patch and server-side apply. Pure functions over JSON.

mod apply;
#[cfg(test)]
mod apply_tests;
mod fields;
mod json;
mod managed;
mod order;
mod strategic;
#[cfg(test)]
mod strategic_tests;
mod structure;

pub use apply::{ApplyError, Conflict, Part, Who, apply, track_update};
pub use json::{json_patch, merge_patch};
pub use managed::Operation;
pub use strategic::strategic_patch;

/// Why a patch is refused.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("error decoding patch: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("the allowed maximum operations in a JSON patch is {limit}, got {count}")]
    TooManyOperations { count: usize, limit: usize },
    #[error("the patched object would be larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{path}: the patched object would be nested deeper than {limit} levels")]
    TooDeep { path: String, limit: usize },
    /// `operation` counts from 0.
    #[error(
        "the server rejected our request due to an error in our request: operation {operation} at {path:?}: {source}"
    )]
    NotApplicable {
        operation: usize,
        path: String,
        source: json_patch::PatchErrorKind,
    },
    #[error("{path}: a strategic merge patch must be {expected} here")]
    WrongShape {
        path: String,
        expected: &'static str,
    },
    #[error("{path}: unknown directive $patch: {directive}; known are replace, delete, merge")]
    UnknownDirective { path: String, directive: String },
    #[error("{path}: element {element} does not contain the merge key {key:?}")]
    NoMergeKey {
        path: String,
        element: String,
        key: String,
    },
}

impl PatchError {
    /// The HTTP status of the answer: 400 for a patch that makes no sense, 413 for one that
    /// grows too large, 422 for one that does not fit this object.
    pub fn status(&self) -> u16 {
        match self {
            PatchError::NotApplicable { .. } => 422,
            PatchError::TooManyOperations { .. } | PatchError::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}
