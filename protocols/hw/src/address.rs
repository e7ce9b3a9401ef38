//! Who a `$hw` topic is about and what it asks: `{id}` as KubeEdge's documents write it, or
//! `{ns}/{name}` as its code does.

use edgebus_bus::{DeviceId, NameError, NodeName};
use std::fmt;

const DEVICE: &str = "$hw/events/device/";
const NODE: &str = "$hw/events/node/";
/// Namespace of a device that is named without one.
const DEFAULT_NS: &str = "default";

/// What can be asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// `twin/update`.
    TwinUpdate,
    /// `twin/get`.
    TwinGet,
    /// `state/update`.
    StateUpdate,
}

impl Channel {
    /// The end of its topic.
    pub fn suffix(self) -> &'static str {
        match self {
            Channel::TwinUpdate => "twin/update",
            Channel::TwinGet => "twin/get",
            Channel::StateUpdate => "state/update",
        }
    }
}

/// A request's topic, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// About a device.
    Device(Address, Channel),
    /// `membership/get` of a node.
    Membership(NodeName),
}

/// A topic that is no request, or names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// None of the request topics.
    #[error(
        "{0:?} is no request: those end in twin/update, twin/get, state/update or membership/get"
    )]
    NotAsked(String),
    /// The level that should name a device or a node does not.
    #[error("topic {topic:?}: {source}")]
    BadName {
        /// The whole topic.
        topic: String,
        /// What is allowed.
        #[source]
        source: NameError,
    },
}

/// A device, in the form in which it was named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub device: DeviceId,
    /// Named by `{id}` alone.
    pub short: bool,
}

impl Address {
    /// Every form under which clients may look for this device: `{ns}/{name}`, and `{id}` alone
    /// for those in namespace `default`.
    pub fn all(device: &DeviceId) -> Vec<Address> {
        let full = Address {
            device: device.clone(),
            short: false,
        };
        let short = Address {
            device: device.clone(),
            short: true,
        };
        if device.ns.as_str() == DEFAULT_NS {
            vec![full, short]
        } else {
            vec![full]
        }
    }

    /// A topic about this device: `twin/update/delta`, ….
    pub fn topic(&self, suffix: &str) -> String {
        format!("{DEVICE}{self}/{suffix}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.short {
            write!(f, "{}", self.device.name)
        } else {
            write!(f, "{}", self.device)
        }
    }
}

impl Asked {
    /// Reads a request's topic.
    pub fn parse(topic: &str) -> Result<Self, AddressError> {
        let cut = || topic.chars().take(200).collect::<String>();
        let bad = |source| AddressError::BadName {
            topic: cut(),
            source,
        };
        if let Some(rest) = topic.strip_prefix(NODE) {
            let node = rest
                .strip_suffix("/membership/get")
                .ok_or_else(|| AddressError::NotAsked(cut()))?;
            return NodeName::new(node).map(Asked::Membership).map_err(bad);
        }
        let rest = topic
            .strip_prefix(DEVICE)
            .ok_or_else(|| AddressError::NotAsked(cut()))?;
        for channel in [Channel::TwinUpdate, Channel::TwinGet, Channel::StateUpdate] {
            let Some(who) = rest
                .strip_suffix(channel.suffix())
                .and_then(|r| r.strip_suffix('/'))
            else {
                continue;
            };
            let (ns, name, short) = match who.split_once('/') {
                Some((ns, name)) => (ns, name, false),
                None => (DEFAULT_NS, who, true),
            };
            let device = DeviceId::new(ns, name).map_err(bad)?;
            return Ok(Asked::Device(Address { device, short }, channel));
        }
        Err(AddressError::NotAsked(cut()))
    }
}

/// Where a node's clients learn of devices that came or went.
pub fn membership_updated(node: &NodeName) -> String {
    format!("{NODE}{node}/membership/updated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_written_back() {
        for (topic, ns, name, channel) in [
            (
                "$hw/events/device/pump/twin/update",
                "default",
                "pump",
                Channel::TwinUpdate,
            ),
            (
                "$hw/events/device/plant/pump/twin/update",
                "plant",
                "pump",
                Channel::TwinUpdate,
            ),
            (
                "$hw/events/device/pump/twin/get",
                "default",
                "pump",
                Channel::TwinGet,
            ),
            (
                "$hw/events/device/plant/twin/twin/get",
                "plant",
                "twin",
                Channel::TwinGet,
            ),
            (
                "$hw/events/device/state/state/update",
                "default",
                "state",
                Channel::StateUpdate,
            ),
        ] {
            let Ok(Asked::Device(address, asked)) = Asked::parse(topic) else {
                panic!("{topic}");
            };
            assert_eq!(address.device, DeviceId::new(ns, name).unwrap(), "{topic}");
            assert_eq!(asked, channel, "{topic}");
            assert_eq!(address.topic(channel.suffix()), topic);
        }
        assert_eq!(
            Asked::parse("$hw/events/node/gw-1/membership/get"),
            Ok(Asked::Membership(NodeName::new("gw-1").unwrap()))
        );
    }

    #[test]
    fn what_is_no_request_says_so() {
        for topic in [
            "$hw/events/device/pump/twin/update/delta",
            "$hw/events/device/twin/update",
            "$hw/events/device//twin/update",
            "$hw/events/device/Pump/twin/update",
            "$hw/events/device/a/b/c/twin/update",
            "$hw/events/device/é/twin/get",
            "$hw/events/node/membership/get",
            "$hw/events/node/A/membership/get",
            "$hw",
            "other",
        ] {
            assert!(Asked::parse(topic).is_err(), "{topic}");
        }
        let said = Asked::parse("$hw/events/device/Pump/twin/get").unwrap_err();
        assert!(said.to_string().contains("\"Pump\""), "{said}");
    }

    #[test]
    fn devices_of_the_default_namespace_answer_to_both_forms() {
        let of = |ns| {
            let id = DeviceId::new(ns, "pump").unwrap();
            Address::all(&id)
                .iter()
                .map(|a| a.topic("x"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of("default"),
            [
                "$hw/events/device/default/pump/x",
                "$hw/events/device/pump/x"
            ]
        );
        assert_eq!(of("plant"), ["$hw/events/device/plant/pump/x"]);
    }
}
