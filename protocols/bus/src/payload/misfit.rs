//! Why a payload cannot be read, in words for whoever wrote it with `mosquitto_pub`: what is wrong,
//! where, the value, and what is allowed.
//!
//! serde_json's own errors name Rust types and lose the place. So a payload that does not fit is
//! read a second time, from the [`Value`], by a deserializer that knows where it is.

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::{Map, Value};
use std::fmt;

/// Characters of a value, or of what stands at a place, that an error repeats.
const SHOWN: usize = 60;

/// Why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// No bytes, or only blanks.
    #[error("it is empty, and JSON is expected")]
    Empty,
    /// Not text at all.
    #[error("it is not UTF-8 text: byte {at} is 0x{byte:02x}, and JSON in UTF-8 is expected")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
        /// That byte.
        byte: u8,
    },
    /// Text, but not JSON.
    #[error("it is not JSON: {what} (line {line}, column {column}{near})")]
    NotJson {
        /// What is wrong, and what is allowed.
        what: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What stands there, if anything does.
        near: String,
    },
    /// JSON, but not what belongs there.
    #[error("{0}")]
    Misfit(#[from] Misfit),
}

/// A value that does not belong where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Keys and indices from the root, innermost first while the error is on its way out.
    path: Vec<String>,
    what: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        match path.strip_prefix('.').unwrap_or(&path) {
            "" => write!(f, "it {}", self.what),
            path => write!(f, "{path} {}", self.what),
        }
    }
}

impl std::error::Error for Misfit {}

/// Reads a payload; the error says where it does not fit.
pub fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, PayloadError> {
    if payload.trim_ascii_start().first() == Some(&b'[') {
        // serde_json takes an array for a struct, field by field: nobody means that.
        if let Ok(list) = serde_json::from_slice::<Value>(payload) {
            return read_value(&list);
        }
    }
    serde_json::from_slice(payload).map_err(|e| explain::<T>(payload, &e))
}

/// Reads a part of a payload that was kept as JSON.
pub fn read_value<T: DeserializeOwned>(value: &Value) -> Result<T, PayloadError> {
    Ok(T::deserialize(At(value))?)
}

fn explain<T: DeserializeOwned>(payload: &[u8], error: &serde_json::Error) -> PayloadError {
    if payload.iter().all(u8::is_ascii_whitespace) {
        return PayloadError::Empty;
    }
    if let Err(e) = std::str::from_utf8(payload) {
        let at = e.valid_up_to();
        return PayloadError::NotUtf8 {
            at,
            byte: payload.get(at).copied().unwrap_or(0),
        };
    }
    match serde_json::from_slice::<Value>(payload) {
        Err(e) => not_json(payload, &e),
        Ok(value) => match T::deserialize(At(&value)) {
            Err(misfit) => misfit.into(),
            // A field that stands twice is lost in a Value.
            Ok(_) => not_json(payload, error),
        },
    }
}

fn not_json(payload: &[u8], error: &serde_json::Error) -> PayloadError {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    let what = match said {
        "expected value" => {
            "a value is expected here: an object, an array, text in double quotes, a number, true, false or null"
        }
        "expected ident" => "only true, false and null stand without quotes",
        "key must be a string" => "the name of a field must stand in double quotes",
        "trailing characters" => "there is more after its end",
        "trailing comma" => "a comma stands before the closing bracket",
        "EOF while parsing an object" => "it ends inside an object: '}' is missing",
        "EOF while parsing a list" => "it ends inside an array: ']' is missing",
        "EOF while parsing a string" => "it ends inside a text: '\"' is missing",
        "EOF while parsing a value" => "it ends where a value is expected",
        "recursion limit exceeded" => "it is nested deeper than 127 levels",
        other => other,
    };
    let (line, column) = (error.line(), error.column());
    let text = payload.split(|b| *b == b'\n').nth(line.saturating_sub(1));
    let rest = text
        .and_then(|line| line.get(column.saturating_sub(1)..))
        .unwrap_or_default();
    let rest: String = String::from_utf8_lossy(rest).chars().take(20).collect();
    PayloadError::NotJson {
        what: what.to_owned(),
        line,
        column,
        near: if rest.is_empty() || error.is_eof() {
            String::new()
        } else {
            format!(", at {rest:?}")
        },
    }
}

fn brief(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "",
        Value::Number(_) => "the number ",
        Value::String(_) => "the text ",
        Value::Array(_) => "the array ",
        Value::Object(_) => "the object ",
    };
    format!("{kind}{}", brief(value.to_string()))
}

fn list(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words.join(", "),
    }
}

/// What serde and its derive expect, in JSON's words.
fn in_json(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "str" | "a borrowed string" => "text in double quotes",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
    .to_owned()
}

impl Misfit {
    fn new(what: String) -> Self {
        Self {
            path: Vec::new(),
            what,
        }
    }
    fn wrong(is: &str, expected: &str) -> Self {
        Self::new(format!("should be {}, and is {is}", in_json(expected)))
    }
    fn under(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }
    fn in_field(self, key: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
        if !key.is_empty() && key.chars().all(plain) {
            self.under(format!(".{key}"))
        } else {
            self.under(format!("[{:?}]", brief(key.to_owned())))
        }
    }
}

fn said(is: Unexpected) -> String {
    match is {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n}"),
        Unexpected::Str(text) => shown(&Value::from(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(format!("is not as it should be: {what}"))
    }
    fn invalid_type(is: Unexpected, expected: &dyn Expected) -> Self {
        Self::wrong(&said(is), &expected.to_string())
    }
    fn invalid_value(is: Unexpected, expected: &dyn Expected) -> Self {
        Self::wrong(&said(is), &expected.to_string())
    }
    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(format!(
            "should be one of {}, and is {}",
            list(allowed),
            shown(&Value::from(variant))
        ))
    }
    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(format!(
            "has no field {field:?}; its fields are {}",
            list(allowed)
        ))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("has no {field:?}, which is needed"))
    }
}

/// A value to be read; errors of what is in it get its place on their way out.
#[derive(Clone, Copy)]
struct At<'a>(&'a Value);

impl<'a> At<'a> {
    fn should_be<T>(self, what: &str) -> Result<T, Misfit> {
        Err(Misfit::wrong(&shown(self.0), what))
    }
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => visitor.visit_u64(n),
                (None, Some(n)) => visitor.visit_i64(n),
                (None, None) => visitor.visit_f64(n.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => visitor.visit_seq(Items(list, 0)),
            Value::Object(map) => visitor.visit_map(Fields(map.iter(), None)),
        }
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Object(_) => self.deserialize_any(visitor).map_err(|mut e| {
                if e.path.is_empty() && e.what.ends_with("which is needed") {
                    e.what += &format!("; it is {}", shown(self.0));
                }
                e
            }),
            _ => self.should_be(&format!("an object with the fields {}", list(fields))),
        }
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => self.should_be("an object"),
        }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => self.should_be("an array"),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::String(text) => {
                let word: StrDeserializer<'_, Misfit> = text.as_str().into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            Value::Object(map) if map.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Fields(map.iter(), None)))
            }
            _ => self.should_be(&format!("one of {}", list(variants))),
        }
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a>(&'a [Value], usize);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misfit;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        let Some(item) = self.0.get(self.1) else {
            return Ok(None);
        };
        let at = self.1;
        self.1 += 1;
        seed.deserialize(At(item))
            .map(Some)
            .map_err(|e| e.under(format!("[{at}]")))
    }
}

struct Fields<'a>(serde_json::map::Iter<'a>, Option<(&'a str, &'a Value)>);

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Misfit;
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let Some((key, value)) = self.0.next() else {
            return Ok(None);
        };
        self.1 = Some((key, value));
        let word: StrDeserializer<'_, Misfit> = key.as_str().into_deserializer();
        seed.deserialize(word).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some((key, value)) = self.1.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(At(value)).map_err(|e| e.in_field(key))
    }
}

/// Reads an object that stands by itself, as Kubernetes' do on the bus.
pub fn read_object<T: for<'de> Deserialize<'de>>(
    object: &Map<String, Value>,
) -> Result<T, PayloadError> {
    let fields = Fields(object.iter(), None);
    Ok(T::deserialize(MapAccessDeserializer::new(fields))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Hello, Report, TwinDesired, TwinSet};

    fn set(payload: &[u8]) -> String {
        read::<TwinSet>(payload).unwrap_err().to_string()
    }

    #[test]
    fn what_people_get_wrong_is_said_in_their_words() {
        let fields = "an object with the fields id, props, if_gen";
        for (payload, says) in [
            (&b""[..], "it is empty, and JSON is expected".to_owned()),
            (b" \n", "it is empty, and JSON is expected".into()),
            (b"{\"id\":\"\xff\"}", "it is not UTF-8 text: byte 7 is 0xff, and JSON in UTF-8 is expected".into()),
            (b"speed=5", "it is not JSON: a value is expected here: an object, an array, text in double quotes, a number, true, false or null (line 1, column 1, at \"speed=5\")".into()),
            (b"{id:\"1\"}", "it is not JSON: the name of a field must stand in double quotes (line 1, column 2, at \"id:\\\"1\\\"}\")".into()),
            (b"{\"id\":\"1\"", "it is not JSON: it ends inside an object: '}' is missing (line 1, column 9)".into()),
            (br#"{"id":"1","props":{}} x"#, "it is not JSON: there is more after its end (line 1, column 23, at \"x\")".into()),
            (b"[1,2,3,4]", format!("it should be {fields}, and is the array [1,2,3,4]")),
            (br#"["1",{"speed":5},null]"#, format!("it should be {fields}, and is the array [\"1\",{{\"speed\":5}},null]")),
            (b"1200", format!("it should be {fields}, and is the number 1200")),
            (b"null", format!("it should be {fields}, and is null")),
            (br#"{"props":{"speed":1}}"#, "it has no \"id\", which is needed; it is the object {\"props\":{\"speed\":1}}".into()),
            (br#"{"id":7,"props":{}}"#, "id should be text in double quotes, and is the number 7".into()),
            (br#"{"id":"7","props":[1]}"#, "props should be an object, and is the array [1]".into()),
            (br#"{"id":"7","props":{},"if_gen":{"store":"s","n":"3"}}"#, "if_gen.n should be a whole number, 0 or more, and is the text \"3\"".into()),
            (br#"{"id":"7","props":{},"if_gen":{"store":"s"}}"#, "if_gen has no \"n\", which is needed; it is the object {\"store\":\"s\"}".into()),
        ] {
            assert_eq!(set(payload), says, "{}", String::from_utf8_lossy(payload));
        }
        assert!(set(br#"{"id":"1","id":"2","props":{}}"#).contains("duplicate field `id`"));
    }

    #[test]
    fn the_place_of_what_is_wrong_is_named_in_full() {
        let said = |json: &[u8]| read::<Report>(json).unwrap_err().to_string();
        assert_eq!(
            said(br#"{"seq":1,"at":"x","props":{"a b":{"at":"x","quality":"fine"}}}"#),
            "props[\"a b\"].quality should be one of good, uncertain, bad, and is the text \"fine\""
        );
        assert_eq!(
            said(br#"{"seq":-1,"at":"x","props":{}}"#),
            "seq should be a whole number, 0 or more, and is the number -1"
        );
        let hello = read::<Hello>(br#"{"protocol":"x","features":["a",5]}"#).unwrap_err();
        assert_eq!(
            hello.to_string(),
            "features[1] should be text in double quotes, and is the number 5"
        );
        let long = format!(r#"{{"seq":1,"at":"x","props":"{}"}}"#, "é".repeat(5000));
        assert!(said(long.as_bytes()).len() < 300);
    }

    #[test]
    fn no_error_names_a_type_of_rust() {
        let wrong = ["[]", "[1,2,3]", "1", "1.5", "true", "null", "\"x\"", "{}"];
        for json in wrong.iter().flat_map(|v| {
            ["id", "props", "if_gen", "seq", "at", "gen"].map(|f| format!(r#"{{"{f}":{v}}}"#))
        }) {
            for error in [
                read::<TwinSet>(json.as_bytes()).map(drop),
                read::<Report>(json.as_bytes()).map(drop),
                read::<TwinDesired>(json.as_bytes()).map(drop),
            ] {
                let Err(error) = error else { continue };
                let said = error.to_string();
                for rust in [
                    "struct",
                    "sequence",
                    "map",
                    "u64",
                    "f64",
                    "enum",
                    "invalid type",
                ] {
                    assert!(!said.contains(rust), "{json}: {said}");
                }
            }
        }
    }

    #[test]
    fn what_is_kept_as_json_is_read_and_refused_alike() {
        let value = serde_json::json!({"id": "1", "props": {"a": 1, "b": null, "c": -1.5}});
        let set: TwinSet = read_value(&value).unwrap();
        assert_eq!(set, serde_json::from_value(value.clone()).unwrap());
        let object = value.as_object().unwrap();
        assert_eq!(read_object::<TwinSet>(object).unwrap(), set);
    }
}
