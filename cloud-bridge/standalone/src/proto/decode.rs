//! Envelope and messages → JSON, driven by the tables. Go writes every non-pointer scalar,
//! zero or not; JSON leaves zeroes out, so they are dropped here unless the field is a
//! pointer.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::ProtoError;
use super::tables::{self, Field, Message, Shape, Ty};
use super::wire::{Reader, Wire};

const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 40;
/// A two-byte field can become a whole JSON object, so bytes alone bound nothing.
const MAX_VALUES: usize = 200_000;

pub(super) fn envelope(body: &[u8]) -> Result<Value, ProtoError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtoError::NoEnvelope)?;
    let at = || "envelope".to_owned();
    let malformed = |_| ProtoError::Malformed { at: at() };
    let (mut api_version, mut kind) = (String::new(), String::new());
    let (mut raw, mut encoding) = (&[][..], String::new());
    for field in Reader::new(unknown) {
        match field.map_err(malformed)? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Reader::new(type_meta) {
                    match field.map_err(malformed)? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text, &at())?,
                        (2, Wire::Bytes(text)) => kind = utf8(text, &at())?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(text)) => encoding = utf8(text, &at())?,
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(ProtoError::UnknownEncoding { encoding });
    }
    let Some(message) = tables::find(&api_version, &kind) else {
        return Err(ProtoError::UnknownKind { api_version, kind });
    };
    let mut decoder = Decoder {
        at: kind.clone(),
        values_left: MAX_VALUES,
    };
    let mut object = decoder.message(message, raw, MAX_DEPTH)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

struct Decoder {
    /// Path for messages: `Pod.spec.containers`.
    at: String,
    values_left: usize,
}

impl Decoder {
    fn malformed(&self) -> ProtoError {
        ProtoError::Malformed {
            at: self.at.clone(),
        }
    }

    fn message(
        &mut self,
        message: &Message,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Map<String, Value>, ProtoError> {
        let mut map = Map::new();
        self.fill(&mut map, message, bytes, depth)?;
        Ok(map)
    }

    fn fill(
        &mut self,
        map: &mut Map<String, Value>,
        message: &Message,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), ProtoError> {
        let depth = depth.checked_sub(1).ok_or_else(|| ProtoError::TooDeep {
            at: self.at.clone(),
            limit: MAX_DEPTH,
        })?;
        for field in Reader::new(bytes) {
            let (tag, wire) = field.map_err(|_| self.malformed())?;
            let Some(field) = message.0.iter().find(|f| f.tag == tag) else {
                continue;
            };
            self.values_left = self
                .values_left
                .checked_sub(1)
                .ok_or(ProtoError::TooLarge { limit: MAX_VALUES })?;
            let len = self.at.len();
            if !matches!(field.shape, Shape::Inline) {
                self.at.push('.');
                self.at.push_str(field.name);
            }
            self.field(map, field, wire, depth)?;
            self.at.truncate(len);
        }
        Ok(())
    }

    fn field(
        &mut self,
        map: &mut Map<String, Value>,
        field: &Field,
        wire: Wire<'_>,
        depth: usize,
    ) -> Result<(), ProtoError> {
        match field.shape {
            // A Go struct embedded in another: its fields are the outer one's in JSON.
            Shape::Inline => {
                if let (Ty::Message(inner), Wire::Bytes(bytes)) = (field.ty, wire) {
                    return self.fill(map, inner, bytes, depth);
                }
                Err(self.malformed())
            }
            Shape::List => {
                let value = self.value(field.ty, wire, depth)?;
                match map
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(vec![]))
                {
                    Value::Array(list) => list.push(value),
                    _ => return Err(self.malformed()),
                }
                Ok(())
            }
            Shape::Map => {
                let (key, value) = self.entry(field.ty, wire, depth)?;
                match map
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()))
                {
                    Value::Object(entries) => entries.insert(key, value),
                    _ => return Err(self.malformed()),
                };
                Ok(())
            }
            Shape::Plain => {
                let value = self.value(field.ty, wire, depth)?;
                if is_zero(&value) {
                    // A later zero overrides an earlier value: the last one counts.
                    map.remove(field.name);
                } else {
                    map.insert(field.name.to_owned(), value);
                }
                Ok(())
            }
            Shape::Pointer => {
                let value = self.value(field.ty, wire, depth)?;
                map.insert(field.name.to_owned(), value);
                Ok(())
            }
        }
    }

    /// One entry of a map field: {1: key, 2: value}.
    fn entry(
        &mut self,
        ty: Ty,
        wire: Wire<'_>,
        depth: usize,
    ) -> Result<(String, Value), ProtoError> {
        let Wire::Bytes(bytes) = wire else {
            return Err(self.malformed());
        };
        let mut key = String::new();
        // Go leaves nothing out, other writers leave out an empty value.
        let mut value = self.value(ty, Wire::Bytes(&[]), depth)?;
        for field in Reader::new(bytes) {
            match field.map_err(|_| self.malformed())? {
                (1, Wire::Bytes(text)) => key = utf8(text, &self.at)?,
                (2, wire) => value = self.value(ty, wire, depth)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn value(&mut self, ty: Ty, wire: Wire<'_>, depth: usize) -> Result<Value, ProtoError> {
        Ok(match (ty, wire) {
            (Ty::Text, Wire::Bytes(bytes)) => Value::String(utf8(bytes, &self.at)?),
            (Ty::Bytes, Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into(),
            (Ty::Bool, Wire::Varint(n)) => (n != 0).into(),
            // Negative int32 and int64 alike are ten bytes of two's complement.
            (Ty::Int, Wire::Varint(n)) => n.cast_signed().into(),
            (Ty::Time, Wire::Bytes(bytes)) => self.time(bytes, "%Y-%m-%dT%H:%M:%SZ")?,
            (Ty::MicroTime, Wire::Bytes(bytes)) => self.time(bytes, "%Y-%m-%dT%H:%M:%S%.6fZ")?,
            (Ty::Quantity, Wire::Bytes(bytes)) => Value::String(self.text_at(bytes, 1)?),
            (Ty::IntOrText, Wire::Bytes(bytes)) => {
                if self.int_at(bytes, 1)? == 0 {
                    self.int_at(bytes, 2)?.into()
                } else {
                    self.text_at(bytes, 3)?.into()
                }
            }
            (Ty::Raw, Wire::Bytes(bytes)) => self.raw(bytes)?,
            (Ty::Texts, Wire::Bytes(bytes)) => {
                let mut list = Vec::new();
                for field in Reader::new(bytes) {
                    if let (1, Wire::Bytes(text)) = field.map_err(|_| self.malformed())? {
                        list.push(Value::String(utf8(text, &self.at)?));
                    }
                }
                Value::Array(list)
            }
            (Ty::Message(message), Wire::Bytes(bytes)) => {
                Value::Object(self.message(message, bytes, depth)?)
            }
            _ => return Err(self.malformed()),
        })
    }

    /// The zero time is an empty message, and `null` in JSON.
    fn time(&self, bytes: &[u8], format: &str) -> Result<Value, ProtoError> {
        let (seconds, nanos) = (self.int_at(bytes, 1)?, self.int_at(bytes, 2)?);
        if seconds == 0 && nanos == 0 {
            return Ok(Value::Null);
        }
        let bad = || ProtoError::BadTime {
            at: self.at.clone(),
        };
        let nanos = i32::try_from(nanos).map_err(|_| bad())?;
        let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| bad())?;
        Ok(time.strftime(format).to_string().into())
    }

    /// JSON inside protobuf: `RawExtension`, `FieldsV1`, `JSON`.
    fn raw(&self, bytes: &[u8]) -> Result<Value, ProtoError> {
        for field in Reader::new(bytes) {
            if let (1, Wire::Bytes(json)) = field.map_err(|_| self.malformed())? {
                return serde_json::from_slice(json).map_err(|_| self.malformed());
            }
        }
        Ok(Value::Null)
    }

    fn text_at(&self, bytes: &[u8], tag: u32) -> Result<String, ProtoError> {
        let mut found = String::new();
        for field in Reader::new(bytes) {
            match field.map_err(|_| self.malformed())? {
                (t, Wire::Bytes(text)) if t == tag => found = utf8(text, &self.at)?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn int_at(&self, bytes: &[u8], tag: u32) -> Result<i64, ProtoError> {
        let mut found = 0;
        for field in Reader::new(bytes) {
            match field.map_err(|_| self.malformed())? {
                (t, Wire::Varint(n)) if t == tag => found = n.cast_signed(),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn utf8(bytes: &[u8], at: &str) -> Result<String, ProtoError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| ProtoError::NotUtf8 { at: at.to_owned() })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
    }
}
