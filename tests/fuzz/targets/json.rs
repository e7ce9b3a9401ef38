#![no_main]

use edgebus_standalone::schema::builtin;
use edgebus_standalone::schema::strict::{FieldValidation, Limits, check, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(parsed) = parse(data, Limits::default()) {
        let pods = builtin::schema("", "v1", "Pod").expect("Pod is built in");
        drop(check("Pod", "v1", &parsed, &pods, FieldValidation::Strict, true));
    }
});
