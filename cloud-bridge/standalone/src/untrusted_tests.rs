//! Whatever a client sends, the parsers of this crate answer and do not panic.

use crate::http::untrusted;
use crate::ops::selector::{Fields, Labels};
use crate::ops::{Body, untrusted as ops};
use crate::store::Packed;
use crate::table::jsonpath::Path;
use proptest::prelude::*;
use serde_json::json;

/// Text rich in what the grammars care about.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "[a-z/%0-9é.=&?!(),\\[\\]@'\"*<>: +;{}-]{0,60}",]
}

proptest! {
    #[test]
    fn requests_are_taken_apart_without_panic(a in text(), b in text()) {
        untrusted(&a, &b);
        ops(&a);
        if let Ok(labels) = Labels::parse(&a) {
            labels.matches(&Packed::new(1, &json!({"metadata": {"labels": {"a": b}}})));
        }
        if let Ok(fields) = Fields::parse(&a, std::slice::from_ref(&b)) {
            fields.matches(&Packed::new(1, &json!({"metadata": {"name": b}})));
        }
        if let Some(path) = Path::parse(&a) {
            path.find(&json!({"a": [{"b": 1}, {"c": [b]}], "z": null}));
        }
    }

    #[test]
    fn bodies_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), a in text()) {
        for media in ["", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
            let parsed = [bytes.clone(), a.clone().into_bytes()].map(|bytes| {
                Body { bytes: bytes.into(), media: media.into() }.parse().is_ok()
            });
            prop_assert!(parsed.len() == 2);
        }
    }
}

#[test]
fn deep_and_bent_yaml_is_refused() {
    let yaml = |text: String| {
        let body = Body {
            bytes: text.into(),
            media: "application/yaml".into(),
        };
        body.parse()
    };
    assert!(yaml("[".repeat(200_000)).is_err());
    assert!(yaml("a: ".repeat(50_000)).is_err());
    assert!(yaml(format!("{}1{}", "[".repeat(5000), "]".repeat(5000))).is_err());
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]";
    assert!(yaml(laughs.to_owned()).is_err());
}
