//! Lenient reading of single values. Manifests in the wild quote numbers and booleans and leave
//! quotes off texts; both say the same thing.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// A text that may have been written as a number or a boolean. Written as text, as KubeEdge does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Scalar;
impl Visitor<'_> for Scalar {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok(String::new())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar).map(Text)
    }
}

/// Any scalar: a structural schema cannot list types, so it is left open and checked on reading.
impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// `with` module for integers that may be quoted.
pub mod int {
    use super::*;

    /// Reads `5`, `"5"` or `5.0`; an empty text is nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
        let text = d.deserialize_any(Scalar)?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
        text.parse()
            .ok()
            .or_else(|| text.parse::<f64>().ok().and_then(whole))
            .map(Some)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(text), &"a whole number"))
    }
}

/// `with` module for decimal numbers that may be quoted.
pub mod float {
    use super::*;

    /// Reads `0.5` or `"0.5"`; an empty text is nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        let text = d.deserialize_any(Scalar)?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .ok()
            .filter(|f: &f64| f.is_finite())
            .map(Some)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(text), &"a finite number"))
    }
}

/// `with` module for booleans that may be quoted.
pub mod boolean {
    use super::*;

    /// Reads `true`, `"true"`, `"True"`, `1` or `"0"`; an empty text is nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
        let text = d.deserialize_any(Scalar)?;
        match text.trim().to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            other => Err(D::Error::invalid_value(
                Unexpected::Str(other),
                &"true or false",
            )),
        }
    }
}

/// Reads `null` as the default: Go clients write it for empty lists and maps.
pub fn or_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct All {
        #[serde(default)]
        t: Text,
        #[serde(default, deserialize_with = "int::deserialize")]
        i: Option<i64>,
        #[serde(default, deserialize_with = "float::deserialize")]
        f: Option<f64>,
        #[serde(default, deserialize_with = "boolean::deserialize")]
        b: Option<bool>,
    }

    fn read(json: &str) -> Result<All, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn quoted_and_plain_values_read_the_same() {
        for (json, t) in [
            (r#"{"t":21}"#, "21"),
            (r#"{"t":"21"}"#, "21"),
            (r#"{"t":0.1}"#, "0.1"),
            (r#"{"t":true}"#, "true"),
            (r#"{"t":9007199254740993}"#, "9007199254740993"),
            (r#"{"t":null}"#, ""),
        ] {
            assert_eq!(read(json).unwrap().t.as_str(), t, "{json}");
        }
        for json in [
            r#"{"i":5}"#,
            r#"{"i":"5"}"#,
            r#"{"i":5.0}"#,
            r#"{"i":" 5 "}"#,
        ] {
            assert_eq!(read(json).unwrap().i, Some(5), "{json}");
        }
        assert_eq!(read(r#"{"i":""}"#).unwrap().i, None);
        assert_eq!(read(r#"{"f":"0.5"}"#).unwrap().f, Some(0.5));
        for json in [r#"{"b":true}"#, r#"{"b":"True"}"#, r#"{"b":1}"#] {
            assert_eq!(read(json).unwrap().b, Some(true), "{json}");
        }
    }

    #[test]
    fn what_does_not_fit_names_the_value_and_what_is_allowed() {
        for (json, says) in [
            (r#"{"i":"five"}"#, "\"five\""),
            (r#"{"i":1.5}"#, "whole number"),
            (r#"{"f":"NaN"}"#, "finite"),
            (r#"{"b":"maybe"}"#, "true or false"),
            (r#"{"t":{}}"#, "a text, a number or a boolean"),
            (r#"{"i":[]}"#, "a text, a number or a boolean"),
        ] {
            let said = read(json).unwrap_err().to_string();
            assert!(said.contains(says), "{json}: {said}");
        }
    }
}
