//! Values as texts, as `$hw` topics and KubeEdge's objects carry them, and as typed JSON.

use edgebus_bus::payload::{PropertyConfig, ValueType};
use serde_json::{Number, Value};

/// Longest value, in bytes.
pub const VALUE_BYTES: usize = 64 * 1024;

/// Why a text is not a value of a property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not of the property's type.
    #[error("{value:?} is not {expected}")]
    WrongType {
        /// What was given, cut to a printable length.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Outside of minimum and maximum.
    #[error("{value} is out of range: allowed are {allowed}")]
    OutOfRange {
        /// What was given.
        value: String,
        /// What would have been accepted.
        allowed: String,
    },
    /// Longer than [`VALUE_BYTES`].
    #[error("it has {bytes} bytes; the longest value has {VALUE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl ValueError {
    /// CamelCase word for machines.
    pub fn reason(&self) -> &'static str {
        match self {
            ValueError::WrongType { .. } => "WrongType",
            ValueError::OutOfRange { .. } => "OutOfRange",
            ValueError::TooLong { .. } => "TooLong",
        }
    }
}

/// The name of a type on `$hw` topics.
pub fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Int => "int",
        ValueType::Float => "float",
        ValueType::Double => "double",
        ValueType::String => "string",
        ValueType::Boolean => "boolean",
        ValueType::Bytes => "bytes",
        ValueType::Stream => "stream",
    }
}

/// Typed JSON as text.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn wrong(text: &str, expected: &'static str) -> ValueError {
    ValueError::WrongType {
        value: text.chars().take(80).collect(),
        expected,
    }
}

fn whole(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| {
        // "21.0" is what many programs write for 21. 2^53 bounds what a double counts exactly.
        let f: f64 = text.parse().ok()?;
        (f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0).then_some(f as i64)
    })
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
}

/// A text as a value of that type.
pub fn typed(kind: ValueType, text: &str) -> Result<Value, ValueError> {
    if text.len() > VALUE_BYTES {
        return Err(ValueError::TooLong { bytes: text.len() });
    }
    let tidy = text.trim();
    match kind {
        ValueType::Int => whole(tidy)
            .map(Value::from)
            .ok_or_else(|| wrong(text, "a whole number of 64 bits (type INT)")),
        ValueType::Float => tidy
            .parse::<f64>()
            .ok()
            .filter(|f| (*f as f32).is_finite())
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| wrong(text, "a finite number of 32 bits (type FLOAT)")),
        ValueType::Double => tidy
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| wrong(text, "a finite number (type DOUBLE)")),
        ValueType::Boolean => match tidy.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(wrong(text, "true or false (type BOOLEAN)")),
        },
        ValueType::String => Ok(Value::String(text.to_owned())),
        ValueType::Bytes if is_base64(tidy) => Ok(Value::String(tidy.to_owned())),
        ValueType::Bytes => Err(wrong(text, "base64 (type BYTES)")),
        ValueType::Stream => Err(wrong(text, "settable: the property is a STREAM")),
    }
}

/// JSON of any kind as a value of that type: `21`, `"21"` and `21.0` all fit an INT.
pub fn retyped(kind: ValueType, value: &Value) -> Result<Value, ValueError> {
    match value {
        Value::Array(_) | Value::Object(_) | Value::Null => {
            Err(wrong(&value.to_string(), "a text, a number or a boolean"))
        }
        scalar => typed(kind, &to_text(scalar)),
    }
}

/// Is a typed value within the property's limits?
pub fn in_range(property: &PropertyConfig, value: &Value) -> Result<(), ValueError> {
    let Some(number) = value.as_f64() else {
        return Ok(());
    };
    let (min, max) = (property.minimum, property.maximum);
    if min.is_none_or(|m| number >= m) && max.is_none_or(|m| number <= m) {
        return Ok(());
    }
    let allowed = match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("{min} and more"),
        (None, Some(max)) => format!("up to {max}"),
        (None, None) => "all".to_owned(),
    };
    Err(ValueError::OutOfRange {
        value: value.to_string(),
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_become_values_of_the_property_s_type() {
        use ValueType::*;
        for (kind, text, value) in [
            (Int, "21", json!(21)),
            (Int, " -3 ", json!(-3)),
            (Int, "21.0", json!(21)),
            (Int, "9223372036854775807", json!(i64::MAX)),
            (Float, "21", json!(21.0)),
            (Double, "1e-3", json!(0.001)),
            (Boolean, "True", json!(true)),
            (Boolean, "0", json!(false)),
            (String, " a é {} ", json!(" a é {} ")),
            (Bytes, "AQI=", json!("AQI=")),
        ] {
            assert_eq!(typed(kind, text), Ok(value), "{kind:?} {text:?}");
        }
        assert_eq!(retyped(Int, &json!(21.0)), Ok(json!(21)));
        assert_eq!(retyped(String, &json!(21)), Ok(json!("21")));
        assert_eq!(retyped(Boolean, &json!(1)), Ok(json!(true)));
    }

    #[test]
    fn what_does_not_fit_names_the_value_and_what_is_allowed() {
        use ValueType::*;
        for (kind, text) in [
            (Int, "abc"),
            (Int, "1.5"),
            (Int, "9223372036854775808"),
            (Int, ""),
            (Float, "1e39"),
            (Double, "NaN"),
            (Double, "inf"),
            (Boolean, "yes"),
            (Bytes, "###"),
            (Bytes, "A==="),
            (Stream, "x"),
        ] {
            let said = typed(kind, text).unwrap_err().to_string();
            assert!(said.contains(&format!("{text:?}")), "{said}");
        }
        assert!(typed(String, &"x".repeat(VALUE_BYTES + 1)).is_err());
        for value in [json!(null), json!([]), json!({})] {
            assert!(retyped(String, &value).is_err(), "{value}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let property: PropertyConfig = serde_json::from_value(
            json!({"name": "p", "type": "INT", "minimum": 0, "maximum": 10.5}),
        )
        .unwrap();
        for ok in [json!(0), json!(10.5), json!("text"), json!(true)] {
            assert_eq!(in_range(&property, &ok), Ok(()), "{ok}");
        }
        let said = in_range(&property, &json!(11)).unwrap_err().to_string();
        assert_eq!(said, "11 is out of range: allowed are 0 to 10.5");
        assert!(in_range(&property, &json!(-0.1)).is_err());
    }
}
