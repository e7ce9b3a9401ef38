//! Values as the bus carries them: typed JSON. Wanted values arrive as Kubernetes strings or typed
//! JSON and become the property's type here, or are refused with the reason.

use edgebus_bus::payload::{PropertyConfig, ValueType};
use serde_json::{Number, Value};

/// Why a value cannot be the property's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// It is not of the property's type.
    #[error("property {property:?}: {value} is not {wanted}")]
    Type {
        /// Property name.
        property: String,
        /// What was given.
        value: String,
        /// What is allowed.
        wanted: &'static str,
    },
    /// It lies outside `minimum` and `maximum`.
    #[error("property {property:?}: {value} is outside {minimum} to {maximum}")]
    Range {
        /// Property name.
        property: String,
        /// What was given.
        value: String,
        /// Smallest allowed.
        minimum: String,
        /// Largest allowed.
        maximum: String,
    },
}

/// Makes `value` the property's type, exactly: nothing is rounded or cut.
pub fn coerce(property: &PropertyConfig, value: &Value) -> Result<Value, RangeError> {
    let text = match value {
        Value::String(s) => s.trim().to_owned(),
        other => other.to_string(),
    };
    let refuse = |wanted| RangeError::Type {
        property: property.name.clone(),
        value: text.chars().take(80).collect(),
        wanted,
    };
    let out = match property.kind {
        ValueType::Int => {
            let n = text.parse::<i64>().ok().or_else(|| whole(&text));
            Value::from(n.ok_or_else(|| refuse("a whole number (INT)"))?)
        }
        ValueType::Float | ValueType::Double => {
            let n = text.parse::<f64>().ok().and_then(Number::from_f64);
            Value::Number(n.ok_or_else(|| refuse("a finite number"))?)
        }
        ValueType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" => Value::Bool(true),
            "false" | "0" | "off" => Value::Bool(false),
            _ => return Err(refuse("true or false (BOOLEAN)")),
        },
        ValueType::String | ValueType::Bytes => Value::String(match value {
            Value::String(s) => s.clone(),
            _ => text.clone(),
        }),
        ValueType::Stream => return Err(refuse("writable: it is a STREAM")),
    };
    if let Some(n) = out.as_f64()
        && (property.minimum.is_some_and(|m| n < m) || property.maximum.is_some_and(|m| n > m))
    {
        let edge = |limit: Option<f64>| limit.map_or("any".to_owned(), |l| l.to_string());
        return Err(RangeError::Range {
            property: property.name.clone(),
            value: text,
            minimum: edge(property.minimum),
            maximum: edge(property.maximum),
        });
    }
    Ok(out)
}

/// `"42.0"` is the whole number 42.
fn whole(text: &str) -> Option<i64> {
    let n: f64 = text.parse().ok()?;
    // Above 2^53 a float no longer names one integer.
    (n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0).then_some(n as i64)
}

/// Equal as far as a device can tell: numbers by a 32-bit float's precision.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x == y,
            _ => match (x.as_f64(), y.as_f64()) {
                (Some(x), Some(y)) => {
                    (x - y).abs() <= f64::from(f32::EPSILON) * x.abs().max(y.abs())
                }
                _ => false,
            },
        },
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn property(kind: ValueType, minimum: Option<f64>, maximum: Option<f64>) -> PropertyConfig {
        serde_json::from_value(
            json!({"name": "p", "type": kind, "minimum": minimum, "maximum": maximum}),
        )
        .unwrap()
    }

    #[test]
    fn strings_and_typed_values_become_the_property_type() {
        use ValueType::*;
        for (kind, given, wanted) in [
            (Int, json!("42"), json!(42)),
            (Int, json!(42), json!(42)),
            (Int, json!("42.0"), json!(42)),
            (Int, json!("9007199254740993"), json!(9007199254740993_i64)),
            (Float, json!("6.5"), json!(6.5)),
            (Boolean, json!("True"), json!(true)),
            (Boolean, json!(0), json!(false)),
            (String, json!(" a "), json!(" a ")),
            (String, json!(7), json!("7")),
        ] {
            assert_eq!(
                coerce(&property(kind, None, None), &given).unwrap(),
                wanted,
                "{given}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        use ValueType::*;
        for (kind, given) in [
            (Int, json!("4.5")),
            (Int, json!("hot")),
            (Int, json!("99999999999999999999")),
            (Float, json!("NaN")),
            (Float, json!("inf")),
            (Boolean, json!("maybe")),
            (Stream, json!("x")),
        ] {
            assert!(
                coerce(&property(kind, None, None), &given).is_err(),
                "{given}"
            );
        }
        let said = coerce(&property(Int, Some(0.0), Some(100.0)), &json!("101"))
            .unwrap_err()
            .to_string();
        assert_eq!(said, "property \"p\": 101 is outside 0 to 100");
    }

    #[test]
    fn a_float_read_back_is_the_one_that_was_written() {
        assert!(same(&json!(6.1), &json!(6.1f32)));
        assert!(!same(&json!(6.1), &json!(6.2)));
        assert!(same(&json!(1), &json!(1.0)));
        assert!(!same(&json!(i64::MAX), &json!(i64::MAX - 1)));
    }
}
