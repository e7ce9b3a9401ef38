//! Every decoder with the seeds of its fuzzer, as they are and damaged, in a minute: the same functions that
//! libFuzzer calls (`tests/fuzz`), for machines without it. The damage is the same in every run;
//! `EDGEBUS_FUZZ_ROUNDS` sets how often each seed is damaged.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use edgebus_tests::run::here;

const DEFAULT_ROUNDS: u32 = 10_000;

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

/// What decoders of texts and of bytes trip over.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"/",
    b"+",
    b"#",
    b"$",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"0.1",
    b"9223372036854775808",
    b"\\ud800",
    b"\xc3\xa9",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x80",
    b"&a ",
    b"*a",
    b"- ",
];

/// A copy with one to four things wrong: cut, doubled, overwritten, moved, or mixed with another seed.
fn damaged(seed: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        let end = (at + dice.roll(16)).min(bytes.len());
        match dice.roll(7) {
            0 => bytes.truncate(at),
            1 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = PIECES[dice.roll(PIECES.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
            4 => {
                let from = dice.roll(other.len() + 1);
                let to = (from + dice.roll(32)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            5 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.wrapping_add(if dice.roll(2) == 0 { 1 } else { 255 });
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.roll(8);
                }
            }
        }
    }
    bytes
}

/// Runs `decoder` over the seeds of `folder` and their damaged copies. What fails is printed as bytes first.
fn replay(folder: &str, decoder: fn(&[u8])) {
    let rounds = std::env::var("EDGEBUS_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_ROUNDS);
    let folder = here(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    // The damage depends on the order.
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    assert!(
        seeds.len() >= 10,
        "{} seeds in {}",
        seeds.len(),
        folder.display()
    );
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let tried = |bytes: &[u8], from: &std::path::Path| {
        let outcome = std::panic::catch_unwind(|| decoder(bytes));
        assert!(
            outcome.is_ok(),
            "from {}: {:?}",
            from.display(),
            bytes.escape_ascii().to_string()
        );
    };
    for (file, seed) in files.iter().zip(&seeds) {
        tried(seed, file);
        for _ in 0..rounds {
            let other = &seeds[dice.roll(seeds.len())];
            tried(&damaged(seed, other, &mut dice), file);
        }
    }
}

#[test]
fn topics_filters_and_payloads_of_the_bus() {
    replay("fuzz/corpus/bus", fuzz::bus);
}

#[test]
fn kubeedge_topics_and_payloads() {
    replay("fuzz/corpus/hw", fuzz::hw);
}

#[test]
fn frames_of_the_link_and_what_join_reads() {
    replay("fuzz/corpus/link", fuzz::link);
}

#[test]
fn devices_and_models() {
    replay("fuzz/corpus/device", fuzz::device);
}

#[test]
fn modbus_configurations_and_registers() {
    replay("fuzz/corpus/modbus", fuzz::modbus);
}

#[test]
fn mqtt_packets() {
    replay("../broker/eventbus/tests/corpus/codec", fuzz::mqtt);
}
