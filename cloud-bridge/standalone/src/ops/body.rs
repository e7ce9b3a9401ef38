//! Request bodies: JSON, YAML or protobuf to one JSON value.

use crate::error::{ApiError, Result};
use crate::proto;
use crate::schema::strict::{self, Limits, ParseError, Parsed};
use serde_json::Value;

/// The most a request may carry, as with etcd behind a Kubernetes API server.
pub const MOST_BYTES: usize = 3 * 1024 * 1024;

const ACCEPTED: &[&str] = &["application/json", "application/yaml", proto::CONTENT_TYPE];

/// A body as it came.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: bytes::Bytes,
    /// Media type without parameters; "" if there was none.
    pub media: String,
}

impl Body {
    pub fn parse(&self) -> Result<Parsed> {
        match self.media.as_str() {
            "" | "application/json" => json(&self.bytes),
            "application/yaml" => yaml(&self.bytes),
            proto::CONTENT_TYPE => proto::decode(&self.bytes)
                .map(|value| Parsed {
                    value,
                    duplicates: Vec::new(),
                })
                .map_err(|error| ApiError::bad_request(error.to_string())),
            other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
        }
    }

    /// As [`Body::parse`]; nothing sent is `null`.
    pub fn parse_optional(&self) -> Result<Value> {
        if self.bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        Ok(self.parse()?.value)
    }
}

pub fn json(bytes: &[u8]) -> Result<Parsed> {
    strict::parse(bytes, Limits::default()).map_err(|error| match error {
        ParseError::TooLarge { limit, .. } => ApiError::too_large(limit),
        ParseError::Syntax(error) => ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        )),
    })
}

/// Apply patches are YAML by name and JSON by habit.
pub fn yaml(bytes: &[u8]) -> Result<Parsed> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return json(bytes);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not UTF-8: {error}")))?;
    let value = serde_saphyr::from_str::<Value>(text)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    // Once more through the parser of JSON, for its bounds (an alias can make much of little).
    json(value.to_string().as_bytes())
}
