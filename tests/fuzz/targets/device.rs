#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgebus_fuzz::device(data));
