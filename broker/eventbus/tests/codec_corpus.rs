//! Replays `tests/corpus/codec`: raw packets, by file name `{connection}-{verdict}-{what}`.
//!
//! The connection is `first` (nothing read yet), `v4` or `v5`; an `ok` packet is read and
//! written back byte for byte, a `bad` one refused. Files with other names (what a fuzzer
//! found) must only not panic; all are tried on every connection, whole and cut short.

use std::path::Path;

use bytes::BytesMut;
use edgebus_eventbus::codec::{Packet, Version, decode, encode};

const MAX: usize = 1 << 16;

fn read(bytes: &[u8], version: Option<Version>) -> Result<Option<Packet>, String> {
    decode(&mut BytesMut::from(bytes), version, MAX).map_err(|e| e.to_string())
}

fn check(name: &str, bytes: &[u8]) {
    for version in [None, Some(Version::V4), Some(Version::V5)] {
        for end in 0..=bytes.len() {
            drop(read(&bytes[..end], version));
        }
    }
    let mut words = name.splitn(3, '-');
    let version = match words.next() {
        Some("first") => None,
        Some("v4") => Some(Version::V4),
        Some("v5") => Some(Version::V5),
        _ => return,
    };
    let got = read(bytes, version);
    match words.next() {
        Some("ok") => {
            let packet = got
                .unwrap_or_else(|e| panic!("{name}: {e}"))
                .unwrap_or_else(|| panic!("{name} is not whole"));
            let mut out = BytesMut::new();
            encode(&packet, version.unwrap_or(Version::V4), &mut out).expect(name);
            assert_eq!(out, bytes, "{name} is written back as it was");
        }
        Some("bad") => assert!(got.is_err(), "{name} gives {got:?}"),
        _ => {}
    }
}

#[test]
fn the_corpus_is_read_as_its_file_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/codec");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        check(&name, &std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 100, "the corpus has {count} files");
}
