//! Which mapper serves a device: the one whose `hello` names the device's protocol, and then the
//! same one for as long as it can, because a device that changes hands is polled and written anew.

use crate::time::Now;
use edgebus_bus::Name;
use edgebus_bus::payload::{Health, Hello, Up};
use std::collections::BTreeMap;

/// How long a mapper may be away before its devices go to another one of the same protocol, and
/// before it is said that nobody serves a device.
pub const PATIENCE_MS: i64 = 10_000;

/// A mapper as devicetwin knows it.
#[derive(Debug, Default)]
pub struct Mapper {
    /// What it serves; none = it has not said so, or not since the broker started.
    pub hello: Option<Hello>,
    /// How it is.
    pub health: Option<Health>,
}

impl Mapper {
    /// Does it serve this protocol?
    pub fn serves(&self, protocol: &str) -> bool {
        self.hello
            .as_ref()
            .is_some_and(|h| h.protocol.eq_ignore_ascii_case(protocol))
    }
    /// Why it cannot be believed at the moment, if so.
    pub fn down(&self) -> Option<&str> {
        let health = self.health.as_ref()?;
        (health.state == Up::Down).then(|| health.why.as_deref().unwrap_or(""))
    }
}

/// All mappers.
pub type Mappers = BTreeMap<Name, Mapper>;

/// Who shall serve a device of `protocol` that `current` serves now and that has been waiting for
/// its mapper `since`. `load` counts the devices of a mapper.
pub fn choose(
    mappers: &Mappers,
    protocol: &str,
    current: Option<&Name>,
    since: Option<i64>,
    load: impl Fn(&Name) -> usize,
    now: Now,
) -> Option<Name> {
    if let Some(name) = current {
        match mappers.get(name) {
            Some(m) if m.serves(protocol) => return Some(name.clone()),
            Some(m) if m.hello.is_some() => {}
            _ => {
                let since = since.unwrap_or(now.0);
                let other = free(mappers, protocol, &load);
                if other.is_none() || now.0 - since < PATIENCE_MS {
                    return Some(name.clone());
                }
                return other;
            }
        }
    }
    free(mappers, protocol, &load)
}

fn free(mappers: &Mappers, protocol: &str, load: &impl Fn(&Name) -> usize) -> Option<Name> {
    mappers
        .iter()
        .filter(|(_, m)| m.serves(protocol))
        .find(|(name, m)| {
            let capacity = m.hello.as_ref().and_then(|h| h.capacity);
            capacity.is_none_or(|most| load(name) < most as usize)
        })
        .map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }
    fn mapper(protocol: Option<&str>, capacity: Option<u32>) -> Mapper {
        let hello = protocol.map(|p| {
            serde_json::from_value(serde_json::json!({"protocol": p, "capacity": capacity}))
                .unwrap()
        });
        Mapper {
            hello,
            health: None,
        }
    }

    #[test]
    fn a_device_goes_to_the_mapper_of_its_protocol_and_stays() {
        let mappers: Mappers = [
            (name("a"), mapper(Some("Modbus"), None)),
            (name("b"), mapper(Some("modbus"), None)),
            (name("full"), mapper(Some("ble"), Some(0))),
            (name("gone"), mapper(None, None)),
        ]
        .into();
        for (protocol, current, now, chosen) in [
            ("MODBUS", None, 0, Some("a")),
            ("modbus", Some("b"), 0, Some("b")),
            ("opcua", None, 0, None),
            ("opcua", Some("a"), 0, None),
            ("ble", None, 0, None),
            // Away: kept for a while, and for ever where nobody else serves the protocol.
            ("modbus", Some("gone"), PATIENCE_MS - 1, Some("gone")),
            ("modbus", Some("gone"), PATIENCE_MS, Some("a")),
            ("opcua", Some("gone"), PATIENCE_MS, Some("gone")),
            ("modbus", Some("never-seen"), 0, Some("never-seen")),
        ] {
            let current = current.map(name);
            let got = choose(
                &mappers,
                protocol,
                current.as_ref(),
                Some(0),
                |_| 0,
                Now(now),
            );
            assert_eq!(got, chosen.map(name), "{protocol} {current:?} at {now}");
        }
    }
}
