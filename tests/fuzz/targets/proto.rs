#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // What is taken is JSON that the API stores: it must be readable as such.
    if let Ok(object) = edgebus_standalone::proto::decode(data) {
        assert!(object["kind"].is_string(), "{object}");
    }
});
