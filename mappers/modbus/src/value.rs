//! Registers to typed values and back. Registers come as Modbus sends them, high byte first; a
//! 32- or 64-bit value has its high register first unless `isRegisterSwap` (`CDAB`) says otherwise.

use crate::config::{Form, Point};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edgebus_bus::payload::ValueType;
use edgebus_mapper_sdk::PointError;
use serde_json::{Number, Value};

fn ordered(point: &Point, cells: &[u16]) -> Vec<u16> {
    let mut out = cells.to_vec();
    if point.swap_bytes {
        out.iter_mut().for_each(|c| *c = c.swap_bytes());
    }
    if point.swap_words {
        out.reverse();
    }
    out
}

fn bytes(cells: &[u16]) -> Vec<u8> {
    cells.iter().flat_map(|c| c.to_be_bytes()).collect()
}

/// What the cells of a point mean. Bits of coils come as 0 and 1.
pub fn decode(point: &Point, cells: &[u16]) -> Result<Value, PointError> {
    let cells = ordered(point, cells);
    let raw = cells
        .iter()
        .take(4)
        .fold(0u64, |all, c| all << 16 | u64::from(*c));
    let bits = 16 * cells.len().min(4) as u32;
    match point.form {
        Form::Bool => Ok(boolean(
            point,
            raw >> point.bit.unwrap_or(0) & if point.bit.is_some() { 1 } else { u64::MAX } != 0,
        )),
        Form::Int { signed } => {
            let whole = if signed {
                i128::from((raw << (64 - bits)) as i64 >> (64 - bits))
            } else {
                i128::from(raw)
            };
            number(point, whole)
        }
        Form::Float => {
            let f = if bits == 32 {
                f64::from(f32::from_bits(raw as u32))
            } else {
                f64::from_bits(raw)
            };
            if !f.is_finite() {
                return Err(PointError::new(
                    "notANumber",
                    format!("the registers hold {f}"),
                ));
            }
            // The shortest text that names the same 32-bit float, not its 64-bit tail.
            let f = if bits == 32 {
                (f as f32).to_string().parse().unwrap_or(f)
            } else {
                f
            };
            real(point, f * point.scale + point.shift)
        }
        Form::Text => {
            let mut all = bytes(&cells);
            all.truncate(all.iter().position(|b| *b == 0).unwrap_or(all.len()));
            let text = String::from_utf8(all)
                .map_err(|_| PointError::new("typeMismatch", "the registers hold no UTF-8 text"))?;
            Ok(Value::String(text.trim_end().to_owned()))
        }
        Form::Bytes => Ok(Value::String(STANDARD.encode(bytes(&cells)))),
    }
}

fn boolean(point: &Point, is: bool) -> Value {
    match point.kind {
        ValueType::Int | ValueType::Float | ValueType::Double => Value::from(u8::from(is)),
        ValueType::String => Value::String(is.to_string()),
        _ => Value::Bool(is),
    }
}

fn number(point: &Point, whole: i128) -> Result<Value, PointError> {
    let plain = point.scale == 1.0 && point.shift == 0.0;
    match point.kind {
        ValueType::Int if plain => i64::try_from(whole)
            .map(Value::from)
            .map_err(|_| PointError::new("overflow", format!("{whole} does not fit a 64-bit INT"))),
        ValueType::Boolean => Ok(Value::Bool(whole != 0)),
        _ => real(point, whole as f64 * point.scale + point.shift),
    }
}

fn real(point: &Point, f: f64) -> Result<Value, PointError> {
    // What scaling adds behind the fifteenth digit is noise of binary fractions.
    let f = if point.scale == 1.0 {
        f
    } else {
        format!("{f:.12e}").parse().unwrap_or(f)
    };
    match point.kind {
        // A scaled INT keeps its whole part, as its type says.
        ValueType::Int if f.abs() <= 9_007_199_254_740_992.0 => Ok(Value::from(f.round() as i64)),
        ValueType::String => Ok(Value::String(f.to_string())),
        _ => Number::from_f64(f)
            .map(Value::Number)
            .ok_or_else(|| PointError::new("notANumber", format!("{f} is no finite number"))),
    }
}

/// The cells that make the point hold `value`.
pub fn encode(point: &Point, value: &Value) -> Result<Vec<u16>, PointError> {
    let refuse = |why: String| PointError::new("outOfRange", why);
    let cells: Vec<u16> = match point.form {
        Form::Bool => {
            let on = match value {
                Value::Bool(b) => *b,
                Value::String(s) => s.eq_ignore_ascii_case("true") || s == "1",
                other => {
                    other
                        .as_f64()
                        .ok_or_else(|| refuse(format!("{other} is neither on nor off")))?
                        != 0.0
                }
            };
            vec![u16::from(on)]
        }
        Form::Int { signed } => {
            let raw = raw_whole(point, value)?;
            let bits = 16 * u32::from(point.count);
            let (low, high) = if signed {
                (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
            } else {
                (0, (1i128 << bits) - 1)
            };
            if !(low..=high).contains(&raw) {
                return Err(refuse(format!(
                    "{value} becomes {raw} in the register(s), which hold {low} to {high}"
                )));
            }
            split(raw as u64, point.count)
        }
        Form::Float => {
            let f = raw_real(point, value)?;
            if point.count == 2 {
                let narrow = f as f32;
                if !narrow.is_finite() {
                    return Err(refuse(format!("{f} does not fit a 32-bit float")));
                }
                split(u64::from(narrow.to_bits()), 2)
            } else {
                split(f.to_bits(), 4)
            }
        }
        Form::Text | Form::Bytes => {
            let Value::String(text) = value else {
                return Err(refuse(format!("{value} is not text")));
            };
            let mut all = if point.form == Form::Text {
                text.clone().into_bytes()
            } else {
                STANDARD
                    .decode(text)
                    .map_err(|e| refuse(format!("it is not base64: {e}")))?
            };
            let room = usize::from(point.count) * 2;
            if all.len() > room {
                return Err(refuse(format!(
                    "{} bytes do not fit {room} bytes of registers",
                    all.len()
                )));
            }
            all.resize(room, 0);
            all.chunks_exact(2)
                .map(|c| u16::from_be_bytes([c[0], c[1]]))
                .collect()
        }
    };
    Ok(ordered(point, &cells))
}

fn raw_real(point: &Point, value: &Value) -> Result<f64, PointError> {
    let f = match value {
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::String(s) => s.trim().parse().unwrap_or(f64::NAN),
        other => other.as_f64().unwrap_or(f64::NAN),
    };
    let raw = (f - point.shift) / point.scale;
    if raw.is_finite() {
        Ok(raw)
    } else {
        Err(PointError::new(
            "outOfRange",
            format!("{value} is no finite number"),
        ))
    }
}

fn raw_whole(point: &Point, value: &Value) -> Result<i128, PointError> {
    if point.scale == 1.0
        && point.shift == 0.0
        && let Some(n) = value.as_i64()
    {
        return Ok(i128::from(n));
    }
    let raw = raw_real(point, value)?;
    let whole = raw.round();
    if whole.abs() > 2f64.powi(64) {
        return Err(PointError::new(
            "outOfRange",
            format!("{value} is too large for the registers"),
        ));
    }
    Ok(whole as i128)
}

fn split(raw: u64, count: u16) -> Vec<u16> {
    (0..count)
        .rev()
        .map(|i| (raw >> (16 * u32::from(i))) as u16)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Table;
    use proptest::prelude::*;
    use serde_json::json;

    fn point(kind: ValueType, form: Form, count: u16) -> Point {
        Point {
            table: Table::Holding,
            address: 0,
            count,
            form,
            kind,
            scale: 1.0,
            shift: 0.0,
            swap_bytes: false,
            swap_words: false,
            bit: None,
        }
    }

    #[test]
    fn the_four_orders_of_a_float_are_told_apart() {
        // 123.456 is 0x42F6E979.
        for (bytes, words, cells) in [
            (false, false, [0x42F6, 0xE979]),
            (true, false, [0xF642, 0x79E9]),
            (false, true, [0xE979, 0x42F6]),
            (true, true, [0x79E9, 0xF642]),
        ] {
            let p = Point {
                swap_bytes: bytes,
                swap_words: words,
                ..point(ValueType::Float, Form::Float, 2)
            };
            assert_eq!(decode(&p, &cells).unwrap(), json!(123.456));
            assert_eq!(encode(&p, &json!(123.456)).unwrap(), cells);
        }
    }

    #[test]
    fn whole_numbers_are_exact_to_64_bits() {
        let p = point(ValueType::Int, Form::Int { signed: true }, 4);
        for n in [0, -1, i64::MIN, i64::MAX, 9_007_199_254_740_993] {
            assert_eq!(
                decode(&p, &encode(&p, &json!(n)).unwrap()).unwrap(),
                json!(n)
            );
        }
        let p = point(ValueType::Int, Form::Int { signed: false }, 4);
        assert_eq!(decode(&p, &[0xFFFF; 4]).unwrap_err().cause, "overflow");
        let p = point(ValueType::Int, Form::Int { signed: true }, 1);
        assert_eq!(decode(&p, &[0xFFFF]).unwrap(), json!(-1));
        assert_eq!(
            decode(
                &point(ValueType::Int, Form::Int { signed: false }, 1),
                &[0xFFFF]
            )
            .unwrap(),
            json!(65535)
        );
    }

    #[test]
    fn scaled_values_come_back_as_they_were_written() {
        let p = Point {
            scale: 0.1,
            shift: -4.0,
            ..point(ValueType::Float, Form::Int { signed: false }, 1)
        };
        assert_eq!(decode(&p, &[105]).unwrap(), json!(6.5));
        assert_eq!(encode(&p, &json!(6.5)).unwrap(), [105]);
        assert!(encode(&p, &json!(-5)).is_err());
        assert!(
            encode(&p, &json!(1e9))
                .unwrap_err()
                .why
                .contains("0 to 65535")
        );
    }

    #[test]
    fn text_ends_at_nul_and_must_fit() {
        let p = point(ValueType::String, Form::Text, 3);
        assert_eq!(encode(&p, &json!("pump")).unwrap(), [0x7075, 0x6D70, 0]);
        assert_eq!(decode(&p, &[0x7075, 0x6D70, 0]).unwrap(), json!("pump"));
        assert!(encode(&p, &json!("too long")).is_err());
        assert!(decode(&p, &[0xFFFF, 0, 0]).is_err());
    }

    #[test]
    fn not_a_number_never_becomes_a_value() {
        let p = point(ValueType::Float, Form::Float, 2);
        assert_eq!(decode(&p, &[0x7FC0, 0]).unwrap_err().cause, "notANumber");
        assert!(encode(&p, &json!("NaN")).is_err());
    }

    #[test]
    fn one_bit_of_a_register_is_a_boolean() {
        let p = Point {
            bit: Some(3),
            ..point(ValueType::Boolean, Form::Bool, 1)
        };
        assert_eq!(decode(&p, &[0b1000]).unwrap(), json!(true));
        assert_eq!(decode(&p, &[0b0111]).unwrap(), json!(false));
    }

    proptest! {
        #[test]
        fn any_registers_decode_without_panic_and_numbers_encode_back(
            cells in prop::collection::vec(any::<u16>(), 4), count in prop::sample::select(vec![1usize, 2, 4]),
            signed: bool, swap_bytes: bool, swap_words: bool,
        ) {
            let p = Point { swap_bytes, swap_words, ..point(ValueType::Int, Form::Int { signed }, count as u16) };
            if let Ok(v) = decode(&p, &cells[..count]) {
                prop_assert_eq!(encode(&p, &v).unwrap(), &cells[..count]);
            }
            let p = Point { swap_bytes, swap_words, ..point(ValueType::Double, Form::Float, if count == 1 { 2 } else { count as u16 }) };
            if let Ok(v) = decode(&p, &cells[..usize::from(p.count)]) {
                prop_assert_eq!(encode(&p, &v).unwrap(), &cells[..usize::from(p.count)]);
            }
        }
    }
}
