//! Request bodies in `application/vnd.kubernetes.protobuf`, which kubectl and helm send
//! for some kinds: decoded to the JSON the rest of the server works with. Answers are
//! always JSON; every client that sends protobuf accepts that.

mod decode;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

use serde_json::Value;

pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why a body is refused (400).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtoError {
    #[error("not a Kubernetes protobuf message: it does not start with \"k8s\\0\"")]
    NoEnvelope,
    #[error("{at}: truncated or malformed protobuf")]
    Malformed { at: String },
    #[error("{at}: a string that is not UTF-8")]
    NotUtf8 { at: String },
    #[error("{at}: nested deeper than {limit} levels")]
    TooDeep { at: String, limit: usize },
    #[error("the message has more than {limit} values")]
    TooLarge { limit: usize },
    #[error("{at}: a time that is out of range")]
    BadTime { at: String },
    #[error(
        "{kind} ({api_version}) in protobuf is not supported here: send it as application/json"
    )]
    UnknownKind { api_version: String, kind: String },
    #[error("content encoding {encoding:?} of the protobuf envelope is not supported")]
    UnknownEncoding { encoding: String },
}

/// Decodes an enveloped object to JSON, `apiVersion` and `kind` included.
pub fn decode(body: &[u8]) -> Result<Value, ProtoError> {
    decode::envelope(body)
}
