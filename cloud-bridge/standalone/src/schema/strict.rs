//! Parses JSON bodies with bounded size and depth, noticing duplicate fields (which
//! `serde_json` silently merges), and judges them by `fieldValidation`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::types::{push_index, push_key};
use super::{Schema, TypeMismatch};

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: usize,
    pub max_depth: usize,
}

impl Default for Limits {
    /// 3 MiB, the API server's own limit; depth below serde_json's own 128.
    fn default() -> Limits {
        Limits {
            max_bytes: 3 * 1024 * 1024,
            max_depth: 100,
        }
    }
}

/// A parsed body and the paths of the fields that it gives twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    /// `spec.replicas`, in the order of appearance; the last value won.
    pub duplicates: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("request body of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge { size: usize, limit: usize },
    #[error("couldn't parse JSON: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// The query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// `None` for a word that is not one of `Ignore`, `Warn`, `Strict` (or empty = Warn).
    pub fn parse(word: &str) -> Option<FieldValidation> {
        Some(match word {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            _ => return None,
        })
    }
}

/// Why a body is refused with 400 BadRequest. `Display` is the whole message.
#[derive(Debug, thiserror::Error)]
pub enum StrictError {
    #[error(
        "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {problems}"
    )]
    Fields {
        kind: String,
        version: String,
        /// `unknown field "foo", duplicate field "data"`
        problems: String,
    },
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {source}")]
    Type {
        kind: String,
        version: String,
        #[source]
        source: TypeMismatch,
    },
}

/// Parses a JSON body.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    if bytes.len() > limits.max_bytes {
        return Err(ParseError::TooLarge {
            size: bytes.len(),
            limit: limits.max_bytes,
        });
    }
    let mut state = State {
        path: String::new(),
        duplicates: Vec::new(),
        depth_left: limits.max_depth,
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut state).deserialize(&mut reader)?;
    reader.end()?;
    Ok(Parsed {
        value,
        duplicates: state.duplicates,
    })
}

/// Judges a body by `fieldValidation`. Returns the warnings for the `Warning` header
/// (without the `299 - ` prefix). `version` is the version alone (`v1`), as in the API
/// server's message. Type errors are refused in every mode; pass `types = false` for
/// custom resources, whose types are a matter of [`Schema::validate`].
pub fn check(
    kind: &str,
    version: &str,
    parsed: &Parsed,
    schema: &Schema,
    mode: FieldValidation,
    types: bool,
) -> Result<Vec<String>, StrictError> {
    if types && let Err(source) = schema.check_types(&parsed.value) {
        return Err(StrictError::Type {
            kind: kind.to_owned(),
            version: version.to_owned(),
            source,
        });
    }
    if mode == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let unknown = schema.unknown_fields(&parsed.value);
    let problems: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(
            parsed
                .duplicates
                .iter()
                .map(|path| format!("duplicate field {path:?}")),
        )
        .collect();
    if mode == FieldValidation::Strict && !problems.is_empty() {
        return Err(StrictError::Fields {
            kind: kind.to_owned(),
            version: version.to_owned(),
            problems: problems.join(", "),
        });
    }
    Ok(problems)
}

/// As many duplicate fields as are worth telling.
const MAX_DUPLICATES: usize = 100;

struct State {
    path: String,
    duplicates: Vec<String>,
    depth_left: usize,
}

struct Seed<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let state = self.0;
        state.enter::<A::Error>()?;
        let len = state.path.len();
        let mut list = Vec::new();
        loop {
            push_index(&mut state.path, list.len());
            let item = seq.next_element_seed(Seed(state))?;
            state.path.truncate(len);
            match item {
                Some(item) => list.push(item),
                None => break,
            }
        }
        state.depth_left += 1;
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let state = self.0;
        state.enter::<A::Error>()?;
        let len = state.path.len();
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            push_key(&mut state.path, &key);
            if map.contains_key(&key) && state.duplicates.len() < MAX_DUPLICATES {
                state.duplicates.push(state.path.clone());
            }
            let value = access.next_value_seed(Seed(state))?;
            state.path.truncate(len);
            map.insert(key, value);
        }
        state.depth_left += 1;
        Ok(Value::Object(map))
    }
}

impl State {
    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or_else(|| E::custom(format_args!("nested too deeply at {}", self.path)))?;
        Ok(())
    }
}
