//! Identifiers, each checked in one constructor. Whoever holds one may put it into a topic: none
//! contains `/`, `+`, `#`, `$` or a control character.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {allowed}")]
pub struct NameError {
    /// Which identifier was meant.
    pub what: &'static str,
    /// What was given, cut to a printable length.
    pub value: String,
    /// What would have been accepted.
    pub allowed: &'static str,
}

const DNS: &str = "1 to 253 characters a-z, 0-9, '-' and '.', each part starting and ending with a letter or digit (RFC 1123 subdomain)";

fn is_dns1123(text: &str) -> bool {
    let part = |p: &str| {
        let b = p.as_bytes();
        !b.is_empty()
            && b.iter()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
            && b[0] != b'-'
            && b[b.len() - 1] != b'-'
    };
    text.len() <= 253 && text.split('.').all(part)
}

fn refuse(what: &'static str, value: &str, allowed: &'static str) -> NameError {
    NameError {
        what,
        value: value.chars().take(80).collect(),
        allowed,
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps `text`.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(refuse($what, &text, $allowed)) }
            }
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> { Self::new(text) }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> { Self::new(text) }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String { name.0 }
        }
    };
}

name!(
    /// A Kubernetes object name, a component's or a mapper's name.
    Name, "name", is_dns1123, DNS
);
name!(
    /// The name of an edge node, as Kubernetes knows it.
    NodeName, "node name", is_dns1123, DNS
);
name!(
    /// The namespace level of an object topic: a namespace, or `_` for cluster-scoped objects
    /// (`_` can be no namespace's name).
    Scope, "namespace", |t| t == "_" || is_dns1123(t), DNS
);
name!(
    /// A free topic level: a stream, an event or a property name in a topic.
    Word, "word",
    |t| (1..=128).contains(&t.len())
        && t.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':' | b'@' | b',')),
    "1 to 128 characters A-Z, a-z, 0-9 and - _ . : @ ,"
);

impl Scope {
    /// The level used for cluster-scoped objects.
    pub fn cluster() -> Self {
        Self("_".into())
    }
}

/// A stream slot, 0 to 31, written with two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// How many slots there are; the last eight are the command line's.
    pub const COUNT: u8 = 32;

    /// Checks the range.
    pub fn new(n: u8) -> Result<Self, NameError> {
        if n < Self::COUNT {
            Ok(Self(n))
        } else {
            Err(refuse("stream slot", &n.to_string(), "00 to 31"))
        }
    }
}
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}
impl FromStr for Slot {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<u8>() {
            Ok(n) if text.len() == 2 && !text.starts_with('+') => Self::new(n),
            _ => Err(refuse("stream slot", text, "00 to 31")),
        }
    }
}

/// A device: its namespace and its name, printed `ns/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId {
    /// Kubernetes namespace.
    pub ns: Name,
    /// Kubernetes name.
    pub name: Name,
}

impl DeviceId {
    /// Checks both parts.
    pub fn new(ns: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            ns: Name::new(ns)?,
            name: Name::new(name)?,
        })
    }
}
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ns, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_1123_subdomains() {
        for good in ["a", "pump-1", "a.b-c.9", &"x".repeat(253)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "a/b",
            "+",
            "#",
            "$x",
            "-a",
            "a-",
            "a..b",
            ".a",
            "é",
            "a b",
            &"x".repeat(254),
        ] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_refusal_names_the_value_and_what_is_allowed() {
        let said = Name::new("Pump").unwrap_err().to_string();
        assert!(
            said.contains("\"Pump\"") && said.contains("RFC 1123"),
            "{said}"
        );
    }

    #[test]
    fn slots_have_two_digits_and_end_at_31() {
        assert_eq!("07".parse::<Slot>().unwrap().to_string(), "07");
        for bad in ["7", "32", "007", "+1", "x"] {
            assert!(bad.parse::<Slot>().is_err(), "{bad}");
        }
    }
}
