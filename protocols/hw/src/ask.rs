//! Requests: what third parties send. Read leniently: numbers and booleans stand for their texts,
//! unknown fields are ignored, a missing `event_id` or `timestamp` is empty or zero.

use edgebus_bus::payload::{self, PayloadError};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most properties that one update may name.
pub const PROPERTIES: usize = 1024;

/// Why a request is refused with code 400.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not the JSON of that request.
    #[error("the payload is not as it should be: {0}")]
    Json(#[from] PayloadError),
    /// A value that is no scalar.
    #[error("the \"value\" of property {0:?} must be a text, a number or a boolean")]
    NotScalar(String),
    /// An update that names nothing.
    #[error(
        "\"twin\" names no property; it should be {{\"property\":{{\"actual\":{{\"value\":\"…\"}}}}}}"
    )]
    Nothing,
    /// More than [`PROPERTIES`].
    #[error("\"twin\" names {0} properties; at most {PROPERTIES} are allowed")]
    TooMany(usize),
    /// Neither value present.
    #[error("property {0:?} has neither \"actual\" nor \"expected\" with a \"value\"")]
    NoValue(String),
    /// Not a name that KubeEdge or we know.
    #[error(
        "property name {0:?} is not valid: 1 to 128 characters, none of them a control character"
    )]
    BadName(String),
}

/// What every message begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// Chosen by the asker, repeated in the answer.
    #[serde(default, deserialize_with = "text")]
    pub event_id: String,
    /// Milliseconds since 1970.
    #[serde(default, deserialize_with = "millis")]
    pub timestamp: i64,
}

/// `twin/get` and `membership/get`. An empty payload is an empty request.
pub type Get = Head;

/// `state/update`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateUpdate {
    /// Id and time.
    #[serde(flatten)]
    pub head: Head,
    /// online, offline, ok, unknown, unhealthy; in any case.
    #[serde(default, deserialize_with = "text")]
    pub state: String,
}

/// `twin/update`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TwinUpdate {
    /// Id and time.
    pub head: Head,
    /// By property; `None` takes away what was said of it.
    pub twin: BTreeMap<String, Option<Said>>,
}

/// What an update says of one property.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    /// What it is: a report.
    pub actual: Option<TextValue>,
    /// What it should be: a wish.
    pub expected: Option<TextValue>,
}

/// A value as text and when it was so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextValue {
    /// The value.
    pub value: String,
    /// Milliseconds since 1970, if said.
    pub timestamp: Option<i64>,
}

fn scalar(value: Value) -> Result<String, &'static str> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err("a text, a number or a boolean"),
    }
}

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    scalar(Value::deserialize(d)?).map_err(|e| D::Error::custom(format!("expected {e}")))
}

fn millis<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    let text = text(d)?;
    if text.is_empty() {
        return Ok(0);
    }
    let float = || text.parse::<f64>().ok().map(|f| f as i64);
    text.parse().ok().or_else(float).ok_or_else(|| {
        D::Error::custom(format!("timestamp {text:?} is not milliseconds since 1970"))
    })
}

// The head's fields stand here and not flattened: an error then names its field.
#[derive(Deserialize)]
struct RawUpdate {
    #[serde(default, deserialize_with = "text")]
    event_id: String,
    #[serde(default, deserialize_with = "millis")]
    timestamp: i64,
    #[serde(default)]
    twin: Option<BTreeMap<String, Option<RawSaid>>>,
}

#[derive(Deserialize)]
struct RawSaid {
    #[serde(default)]
    actual: Option<RawValue>,
    #[serde(default)]
    expected: Option<RawValue>,
}

#[derive(Deserialize)]
struct RawValue {
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    metadata: Option<RawMeta>,
}

#[derive(Deserialize)]
struct RawMeta {
    #[serde(default, deserialize_with = "millis")]
    timestamp: i64,
}

impl TwinUpdate {
    /// Reads an update. On an error the id is lost: see [`head_of`].
    pub fn read(bytes: &[u8]) -> Result<Self, AskError> {
        let raw: RawUpdate = payload::read(bytes)?;
        let twin = raw.twin.unwrap_or_default();
        if twin.is_empty() {
            return Err(AskError::Nothing);
        }
        if twin.len() > PROPERTIES {
            return Err(AskError::TooMany(twin.len()));
        }
        let mut out = BTreeMap::new();
        for (name, said) in twin {
            if name.is_empty() || name.chars().count() > 128 || name.contains(char::is_control) {
                return Err(AskError::BadName(name.chars().take(80).collect()));
            }
            let said = match said {
                None => None,
                Some(said) => {
                    let actual = read_value(&name, said.actual)?;
                    let expected = read_value(&name, said.expected)?;
                    if actual.is_none() && expected.is_none() {
                        return Err(AskError::NoValue(name));
                    }
                    Some(Said { actual, expected })
                }
            };
            out.insert(name, said);
        }
        Ok(Self {
            head: Head {
                event_id: raw.event_id,
                timestamp: raw.timestamp,
            },
            twin: out,
        })
    }
}

fn read_value(name: &str, raw: Option<RawValue>) -> Result<Option<TextValue>, AskError> {
    let Some(RawValue { value, metadata }) = raw else {
        return Ok(None);
    };
    let Some(value) = value else {
        return Ok(None);
    };
    let value = scalar(value).map_err(|_| AskError::NotScalar(name.to_owned()))?;
    let timestamp = metadata.map(|m| m.timestamp).filter(|t| *t > 0);
    Ok(Some(TextValue { value, timestamp }))
}

/// Reads `twin/get` or `membership/get`; an empty payload is an empty request.
pub fn read_get(bytes: &[u8]) -> Result<Get, AskError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Get::default());
    }
    Ok(payload::read(bytes)?)
}

/// Reads `state/update`.
pub fn read_state(bytes: &[u8]) -> Result<StateUpdate, AskError> {
    Ok(payload::read(bytes)?)
}

/// The head of a payload that is otherwise wrong, so that the refusal finds its asker.
pub fn head_of(payload: &[u8]) -> Head {
    serde_json::from_slice(payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TwinUpdate, AskError> {
        TwinUpdate::read(json.as_bytes())
    }

    #[test]
    fn an_update_is_read_as_kubeedge_writes_it() {
        let update = read(
            r#"{"event_id":"e","timestamp":1700000000000,"twin":{
                "temp":{"actual":{"value":"21","metadata":{"timestamp":1700000000001}},
                        "expected":{"value":"20"},"optional":true,"metadata":{"type":"int"}},
                "old":null}}"#,
        )
        .unwrap();
        assert_eq!(update.head.event_id, "e");
        let temp = update.twin["temp"].clone().unwrap();
        assert_eq!(
            temp.actual,
            Some(TextValue {
                value: "21".into(),
                timestamp: Some(1_700_000_000_001)
            })
        );
        assert_eq!(temp.expected.unwrap().value, "20");
        assert_eq!(update.twin["old"], None);
    }

    #[test]
    fn what_scripts_leave_out_is_filled_in() {
        let update = read(r#"{"twin":{"t":{"actual":{"value":21.5}}}}"#).unwrap();
        assert_eq!(update.head, Head::default());
        let said = update.twin["t"].clone().unwrap();
        assert_eq!(said.actual.unwrap().value, "21.5");
        let update = read(r#"{"event_id":7,"timestamp":"5","twin":{"t":{"expected":{"value":true,"metadata":{}}}}}"#).unwrap();
        assert_eq!(update.head.event_id, "7");
        assert_eq!(update.head.timestamp, 5);
        assert_eq!(read_get(b"").unwrap(), Get::default());
    }

    #[test]
    fn wrong_updates_are_refused_with_a_reason() {
        for (json, says) in [
            ("", "empty"),
            ("{", "is missing"),
            ("null", "null"),
            ("[]", "should be an object"),
            ("{}", "names no property"),
            (r#"{"twin":null}"#, "names no property"),
            (r#"{"twin":{}}"#, "names no property"),
            (r#"{"twin":{"t":{}}}"#, "neither"),
            (r#"{"twin":{"t":{"actual":{}}}}"#, "neither"),
            (
                r#"{"twin":{"t":{"actual":{"value":{}}}}}"#,
                "must be a text",
            ),
            (r#"{"twin":{"t":5}}"#, "twin.t should be an object"),
            (
                r#"{"twin":{"":{"actual":{"value":"1"}}}}"#,
                "128 characters",
            ),
            (
                r#"{"timestamp":"soon","twin":{"t":{"actual":{"value":"1"}}}}"#,
                "soon",
            ),
        ] {
            let said = read(json).unwrap_err().to_string();
            assert!(said.contains(says), "{json}: {said}");
        }
        assert_eq!(head_of(br#"{"event_id":"e","twin":5}"#).event_id, "e");
        assert_eq!(head_of(b"{").event_id, "");
    }
}
