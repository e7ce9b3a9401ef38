//! What two ends compare instead of content: a hash per object and an order-independent digest per kind.
//!
//! A [`Digest`] is the lane-wise wrapping sum of one SHA-256 per `(topic, uid, content hash)` and a count, so
//! adding and removing an entry costs one hash, whatever the size of the set. Kubernetes resource versions
//! never enter it: they can go backwards when a cluster is restored from a backup.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// SHA-256 of an object's content, or any 32 bytes its sender chose to tell versions apart (sealed objects,
/// whose ciphertext differs each time, carry a keyed hash of the plain text).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of nothing known: never equal to the hash of content, so it always differs from a manifest.
    pub const UNKNOWN: Hash = Hash([0; 32]);

    /// Hash of a JSON document, whatever the order of its keys.
    pub fn of_json(value: &Value) -> Hash {
        Hash::of_bytes(canonical_json(value).as_bytes())
    }

    /// Hash of raw bytes.
    pub fn of_bytes(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// From 64 hex digits, as stored in payloads on the bus.
    pub fn from_hex(text: &str) -> Option<Hash> {
        let raw = text.as_bytes();
        if raw.len() != 64 {
            return None;
        }
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(raw.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Hash(out))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}{:02x}{:02x}{:02x}…",
            self.0[0], self.0[1], self.0[2], self.0[3]
        )
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Hash::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("a hash is 64 hexadecimal digits"))
    }
}

/// Order-independent digest of a set of `(topic, uid, content hash)`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Digest {
    pub(crate) sum: [u64; 4],
    pub(crate) count: u64,
}

impl Digest {
    /// The digest of the empty set.
    pub const EMPTY: Digest = Digest {
        sum: [0; 4],
        count: 0,
    };

    /// How many entries it covers.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds one entry. The caller keeps the set: adding the same entry twice counts it twice.
    pub fn add(&mut self, topic: &str, uid: &str, hash: &Hash) {
        for (sum, part) in self.sum.iter_mut().zip(parts(topic, uid, hash)) {
            *sum = sum.wrapping_add(part);
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Takes one entry out that was added before.
    pub fn remove(&mut self, topic: &str, uid: &str, hash: &Hash) {
        for (sum, part) in self.sum.iter_mut().zip(parts(topic, uid, hash)) {
            *sum = sum.wrapping_sub(part);
        }
        self.count = self.count.wrapping_sub(1);
    }
}

fn parts(topic: &str, uid: &str, hash: &Hash) -> [u64; 4] {
    let mut sha = Sha256::new();
    // Lengths first, so that no two entries run into the same bytes.
    for text in [topic, uid] {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text.as_bytes());
    }
    sha.update(hash.0);
    let bytes: [u8; 32] = sha.finalize().into();
    let mut out = [0u64; 4];
    for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0u8; 8];
        eight.copy_from_slice(chunk);
        *word = u64::from_be_bytes(eight);
    }
    out
}

/// JSON with sorted keys and no white space. `serde_json` may keep insertion order (its `preserve_order`
/// feature can be switched on by any crate of a build), so the sorting is done here.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(&map[key], out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_entries_and_of_keys_does_not_matter() {
        let a = Hash::of_json(&json!({"x": 1, "y": {"b": [1, 2], "a": null}}));
        let b =
            Hash::of_json(&serde_json::from_str(r#"{"y":{"a":null,"b":[1,2]},"x":1}"#).unwrap());
        assert_eq!(a, b);
        let (mut one, mut two) = (Digest::EMPTY, Digest::EMPTY);
        one.add("t/1", "u", &a);
        one.add("t/2", "u", &a);
        two.add("t/2", "u", &a);
        two.add("t/1", "u", &a);
        assert_eq!(one, two);
        two.remove("t/1", "u", &a);
        assert_ne!(one, two);
        two.remove("t/2", "u", &a);
        assert_eq!(two, Digest::EMPTY);
    }

    #[test]
    fn neighbouring_fields_do_not_run_together() {
        let h = Hash::of_bytes(b"x");
        let (mut one, mut two) = (Digest::EMPTY, Digest::EMPTY);
        one.add("ab", "c", &h);
        two.add("a", "bc", &h);
        assert_ne!(one, two);
    }

    #[test]
    fn a_hash_survives_its_hex_form() {
        let h = Hash::of_bytes(b"content");
        assert_eq!(Hash::from_hex(&h.to_hex()), Some(h));
        assert_eq!(Hash::from_hex("é"), None);
        assert_eq!(Hash::from_hex(&"g".repeat(64)), None);
        assert_eq!(Hash::from_hex(&"é".repeat(32)), None);
    }
}
