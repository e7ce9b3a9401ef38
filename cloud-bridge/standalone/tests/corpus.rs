//! Replays inputs that once were, or might be, trouble to every decoder, as they are and
//! damaged. A file whose name starts with `bad-` must be refused, one with `ok-` accepted,
//! any other may be either. `EDGEBUS_FUZZ_ROUNDS` sets how often each file is damaged.

use std::path::Path;

use edgebus_standalone::patch::{Part, Who, apply, json_patch, strategic_patch, track_update};
use edgebus_standalone::schema::strict::{FieldValidation, Limits, check, parse};
use edgebus_standalone::schema::{Schema, builtin, crd};
use edgebus_standalone::{patch, proto};
use serde_json::{Value, json};

const DEFAULT_ROUNDS: u32 = 60;

/// Whether a decoder accepted its input.
type Decoder = fn(&[u8]) -> bool;

fn protobuf(bytes: &[u8]) -> bool {
    proto::decode(bytes).is_ok()
}

fn object(bytes: &[u8]) -> bool {
    let Ok(parsed) = parse(bytes, Limits::default()) else {
        return false;
    };
    let pods = builtin::schema("", "v1", "Pod").expect("Pod is built in");
    let strict = check("Pod", "v1", &parsed, &pods, FieldValidation::Strict, true);
    let open = Schema::custom(None).expect("no schema is a schema");
    let mut value = parsed.value;
    open.default(&mut value);
    open.prune(&mut value);
    strict.is_ok() && open.validate(&value).is_empty()
}

fn definition(bytes: &[u8]) -> bool {
    let Ok(parsed) = parse(bytes, Limits::default()) else {
        return false;
    };
    let causes = crd::check(&json!({"spec": {"versions": [
        {"name": "v1", "schema": {"openAPIV3Schema": parsed.value}},
    ]}}));
    if let Ok(schema) = Schema::custom(Some(&parsed.value)) {
        // A schema is as good an object as any.
        let mut value = parsed.value.clone();
        schema.default(&mut value);
        drop(schema.validate(&value));
        drop(schema.unknown_fields(&value));
        schema.prune(&mut value);
    }
    causes.is_empty()
}

/// `{"target": …, "patch": …}`, tried as every kind of patch on a Pod.
fn patches(bytes: &[u8]) -> bool {
    let Ok(parsed) = parse(bytes, Limits::default()) else {
        return false;
    };
    let pods = builtin::schema("", "v1", "Pod").expect("Pod is built in");
    let target = &parsed.value["target"];
    let change = &parsed.value["patch"];
    let who = Who {
        manager: "corpus",
        api_version: "v1",
        subresource: "",
        now: "2026-11-23T21:00:00Z",
        part: Part::WithoutStatus,
    };
    let by_list = json_patch(target, change);
    let merged = patch::merge_patch(target, change);
    let strategic = strategic_patch(target, change, &pods);
    let applied = apply(Some(target), change, &pods, &who, true);
    for mut new in [Some(merged), by_list.as_ref().ok().cloned()]
        .into_iter()
        .flatten()
    {
        track_update(Some(target), &mut new, &pods, &who);
    }
    if let Ok(applied) = &applied {
        let again = apply(Some(applied), change, &pods, &who, false);
        assert!(again.is_ok(), "a forced apply conflicts with itself");
    }
    match change {
        Value::Array(_) => by_list.is_ok(),
        _ => strategic.is_ok() && applied.is_ok(),
    }
}

/// xorshift64: the same damage in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

/// Overwrites, cuts, doubles or inserts a few bytes.
fn damage(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    const TOKENS: &[&[u8]] = &[
        b"null",
        b"{}",
        b"[]",
        b"\"",
        b"{",
        b"[",
        b"}",
        b"]",
        b",",
        b"-1",
        b"1e400",
        b"\\ud800",
        b"\xff\xff\xff\xff\x0f",
        b"\x0a\x80\x80\x80\x80\x10",
        b"\x00",
        b"$patch",
        b"$ref",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        let end = (at + dice.roll(16)).min(bytes.len());
        match dice.roll(5) {
            0 => bytes.truncate(at),
            1 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => {
                let token = TOKENS[dice.roll(TOKENS.len())];
                bytes.splice(at..end.min(at + token.len()), token.iter().copied());
            }
            3 => drop(bytes.drain(at..end)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.roll(8);
                }
            }
        }
    }
    bytes
}

fn replay(folder: &str, decoder: Decoder) {
    let rounds = std::env::var("EDGEBUS_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_ROUNDS);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is part of the crate") {
        let path = entry.expect("the corpus can be listed").path();
        let bytes = std::fs::read(&path).expect("the corpus can be read");
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let accepted = decoder(&bytes);
        if name.starts_with("bad-") {
            assert!(!accepted, "{name} was accepted");
        }
        if name.starts_with("ok-") {
            assert!(accepted, "{name} was refused");
        }
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64);
        for _ in 0..rounds {
            decoder(&damage(&bytes, &mut dice));
        }
        seen += 1;
    }
    assert!(seen > 0, "{} is empty", folder.display());
}

#[test]
fn protobuf_bodies_are_decoded_or_refused() {
    replay("proto", protobuf);
}

#[test]
fn json_bodies_are_decoded_or_refused() {
    replay("json", object);
}

#[test]
fn schemas_of_definitions_are_accepted_or_refused() {
    replay("definition", definition);
}

#[test]
fn patches_are_applied_or_refused() {
    replay("patch", patches);
}
