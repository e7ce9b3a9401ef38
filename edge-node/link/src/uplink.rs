//! What goes up: twins and statuses as they lie on the bus, newest only.
//!
//! The list of what goes up is never called complete: after the loss of a broker's store twins are missing
//! here for a moment while their devices still exist. So what a twin's or pod's disappearance means is read
//! from the object it belongs to: only with that gone is the deletion sent.

use bytes::Bytes;
use edgebus_bus::{Name, Scope, Topic, table};
use edgebus_linkproto::{Hash, Item, Kind};
use serde::Deserialize;

/// Filters of the state that goes up.
pub fn filters() -> Vec<String> {
    let Ok(name) = Name::new("x") else {
        return Vec::new();
    };
    [
        Topic::NodeStatus {},
        Topic::PodStatus {
            ns: name.clone(),
            name: name.clone(),
        },
        Topic::Twin {
            ns: name.clone(),
            name,
        },
    ]
    .iter()
    .map(|topic| table::filter_of(topic.row().pattern, &[]))
    .collect()
}

/// Under which kind a topic goes up; None for what does not.
pub fn kind_of(topic: &Topic) -> Option<Kind> {
    let kind = match topic {
        Topic::NodeStatus {} => Kind::NODE_STATUS,
        Topic::PodStatus { .. } => Kind::POD_STATUS,
        Topic::Twin { .. } => Kind::TWIN,
        _ => return None,
    };
    Kind::new(kind).ok()
}

/// The object that a topic's content is about, as it lies on the bus.
pub fn owner(topic: &Topic) -> Option<(Kind, Topic)> {
    let (kind, ns, name) = match topic {
        Topic::Twin { ns, name } => ("device", ns, name),
        Topic::PodStatus { ns, name } => ("pod", ns, name),
        _ => return None,
    };
    let ns: Scope = ns.as_str().parse().ok()?;
    let topic = Topic::Obj {
        kind: Name::new(kind).ok()?,
        ns,
        name: name.clone(),
    };
    Some((Kind::new(kind).ok()?, topic))
}

/// The twin or status of an object.
pub fn owned(object: &Topic) -> Option<Topic> {
    let Topic::Obj { kind, ns, name } = object else {
        return None;
    };
    let ns = Name::new(ns.as_str()).ok()?;
    match kind.as_str() {
        "device" => Some(Topic::Twin {
            ns,
            name: name.clone(),
        }),
        "pod" => Some(Topic::PodStatus {
            ns,
            name: name.clone(),
        }),
        _ => None,
    }
}

/// The message for the cloud. `owner_uid` is the uid of the object that it is about, where there is one: with
/// it the cloud never writes the state of a deleted object to its successor of the same name.
pub fn item(payload: &Bytes, owner_uid: Option<&str>) -> Item {
    #[derive(Deserialize)]
    struct Own {
        #[serde(default)]
        uid: String,
    }
    // A pod's status names the pod it is about itself.
    let own = serde_json::from_slice::<Own>(payload)
        .map(|own| own.uid)
        .unwrap_or_default();
    let uid = if own.is_empty() {
        owner_uid.unwrap_or_default().to_owned()
    } else {
        own
    };
    Item {
        uid,
        hash: Hash::of_bytes(payload),
        body: payload.clone(),
    }
}

/// Only our own node's words go up.
pub fn is_ours(topic: &Topic, payload: &[u8], node: &str) -> bool {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        node: String,
    }
    match topic {
        Topic::NodeStatus {} => serde_json::from_slice::<Named>(payload)
            .is_ok_and(|named| named.node.is_empty() || named.node == node),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_belongs_to_its_device_and_back() {
        let twin = Topic::Twin {
            ns: Name::new("a").unwrap(),
            name: Name::new("b").unwrap(),
        };
        let (kind, device) = owner(&twin).unwrap();
        assert_eq!(kind.as_str(), "device");
        assert_eq!(owned(&device), Some(twin));
        assert_eq!(owner(&Topic::NodeStatus {}), None);
    }

    #[test]
    fn the_uid_is_the_payloads_own_or_the_owners() {
        let own = Bytes::from(r#"{"uid":"p-1","status":{}}"#);
        assert_eq!(item(&own, Some("x")).uid, "p-1");
        let none = Bytes::from(r#"{"gen":1}"#);
        assert_eq!(item(&none, Some("d-1")).uid, "d-1");
        assert_eq!(item(&none, None).uid, "");
    }

    #[test]
    fn another_nodes_status_stays_here() {
        let node = "n1";
        assert!(is_ours(&Topic::NodeStatus {}, br#"{"node":"n1"}"#, node));
        assert!(!is_ours(&Topic::NodeStatus {}, br#"{"node":"n2"}"#, node));
        assert!(!is_ours(&Topic::NodeStatus {}, b"{", node));
    }
}
