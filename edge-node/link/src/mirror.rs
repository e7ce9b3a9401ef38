//! What comes down, as it lies on the bus: topics that link may write, and payloads with the hash by which a
//! restarted link knows them again.

use bytes::Bytes;
use edgebus_bus::topic::TopicError;
use edgebus_bus::{Name, Scope, Topic, table};
use edgebus_linkproto::{Hash, Kind, KindError, Put};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use thiserror::Error;

/// Why something from the cloud does not go on the bus. It will be no different next time.
#[derive(Debug, Error)]
pub enum MirrorError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("{topic} is not a topic that the cloud may write")]
    NotCloud { topic: String },
    #[error("{topic} is of kind {wanted}, not {got}")]
    OtherKind {
        topic: String,
        wanted: String,
        got: Kind,
    },
    #[error("the body for {topic} is not a JSON object: {source}")]
    Body {
        topic: String,
        #[source]
        source: serde_json::Error,
    },
}

/// One of link's retained topics, found on the bus.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub kind: Kind,
    pub uid: String,
    pub hash: Hash,
    pub rev: u64,
}

/// The kind whose list covers this topic; None for topics that are not the cloud's.
pub fn kind_of(topic: &Topic) -> Option<&str> {
    match topic {
        Topic::Obj { kind, .. } | Topic::Sealed { kind, .. } => Some(kind.as_str()),
        Topic::NodeSpec {} => Some(Kind::NODE),
        _ => None,
    }
}

/// The topic of something that came from the cloud, checked.
pub fn check(kind: &Kind, text: &str) -> Result<Topic, MirrorError> {
    let topic = Topic::parse(text)?;
    match kind_of(&topic) {
        Some(wanted) if wanted == kind.as_str() => Ok(topic),
        Some(wanted) => Err(MirrorError::OtherKind {
            topic: text.to_owned(),
            wanted: wanted.to_owned(),
            got: kind.clone(),
        }),
        None => Err(MirrorError::NotCloud {
            topic: text.to_owned(),
        }),
    }
}

/// Filters of all that link itself keeps on the bus.
pub fn filters() -> Vec<String> {
    let Ok(name) = Name::new("x") else {
        return Vec::new();
    };
    [
        Topic::Obj {
            kind: name.clone(),
            ns: Scope::cluster(),
            name: name.clone(),
        },
        Topic::Sealed {
            kind: name.clone(),
            ns: Scope::cluster(),
            name: name.clone(),
        },
        Topic::NodeSpec {},
        Topic::Sync { kind: name },
    ]
    .iter()
    .map(|topic| table::filter_of(topic.row().pattern, &[]))
    .collect()
}

/// The payload for the bus. Objects stand whole under `obj`; sealed ones and the node's spec keep their form.
/// `hash` is kept beside them: it is the cloud's word for this version, and may be a keyed hash that nobody
/// here can compute.
pub fn payload(topic: &Topic, put: &Put, rev: u64) -> Result<Bytes, MirrorError> {
    let bad = |source| MirrorError::Body {
        topic: put.topic.clone(),
        source,
    };
    let mut body: Map<String, Value> = serde_json::from_slice(&put.body).map_err(bad)?;
    let mut out = match topic {
        Topic::Obj { .. } => Map::from_iter([("obj".to_owned(), Value::Object(body))]),
        _ => std::mem::take(&mut body),
    };
    if !matches!(topic, Topic::NodeSpec {}) {
        out.insert("rev".into(), rev.into());
    }
    out.insert("uid".into(), put.uid.as_str().into());
    out.insert("hash".into(), put.hash.to_hex().into());
    let bytes = serde_json::to_vec(&out).map_err(bad)?;
    Ok(bytes.into())
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    rev: u64,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    hash: Option<Hash>,
    #[serde(default, rename = "obj")]
    _obj: Option<IgnoredAny>,
}

/// What lies on one of link's topics. Unreadable content is content of an unknown version: it will be written
/// again, or deleted if the cloud does not know it.
pub fn stored(topic: &Topic, payload: &[u8]) -> Option<Result<Stored, KindError>> {
    let kind = kind_of(topic)?;
    let head: Head = serde_json::from_slice(payload).unwrap_or(Head {
        rev: 0,
        uid: String::new(),
        hash: None,
        _obj: None,
    });
    Some(Kind::new(kind).map(|kind| Stored {
        kind,
        uid: head.uid,
        hash: head.hash.unwrap_or(Hash::UNKNOWN),
        rev: head.rev,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgebus_bus::payload;

    fn put(topic: &Topic, kind: &str, body: &str) -> Put {
        Put {
            seq: 1,
            kind: Kind::new(kind).unwrap(),
            topic: topic.to_string(),
            uid: "u-1".into(),
            hash: Hash::of_bytes(body.as_bytes()),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn device() -> Topic {
        Topic::Obj {
            kind: Name::new("device").unwrap(),
            ns: "plant".parse().unwrap(),
            name: Name::new("pump").unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_known_again() {
        let sealed = Topic::Sealed {
            kind: Name::new("secret").unwrap(),
            ns: "plant".parse().unwrap(),
            name: Name::new("s").unwrap(),
        };
        for (topic, kind, body) in [
            (device(), "device", r#"{"spec":{"x":1.1}}"#),
            (sealed, "secret", r#"{"key_id":"k","box":"AA"}"#),
            (
                Topic::NodeSpec {},
                Kind::NODE,
                r#"{"node":"n","uid":"u-1","labels":{"a":"b"}}"#,
            ),
        ] {
            let put = put(&topic, kind, body);
            assert_eq!(check(&put.kind, &put.topic).unwrap(), topic);
            let bytes = payload(&topic, &put, 7).unwrap();
            let stored = stored(&topic, &bytes).unwrap().unwrap();
            assert_eq!(
                (stored.uid.as_str(), stored.hash),
                ("u-1", put.hash),
                "{topic}"
            );
            let rev = if kind == Kind::NODE { 0 } else { 7 };
            assert_eq!(stored.rev, rev);
        }
    }

    #[test]
    fn the_payloads_are_the_contracts_own() {
        let bytes = payload(&device(), &put(&device(), "device", r#"{"spec":{}}"#), 3).unwrap();
        let obj: payload::Obj = payload::read(&bytes).unwrap();
        assert_eq!(
            (obj.rev, obj.uid.as_str(), obj.obj.contains_key("spec")),
            (3, "u-1", true)
        );
        let spec = put(&Topic::NodeSpec {}, Kind::NODE, r#"{"node":"n"}"#);
        let bytes = payload(&Topic::NodeSpec {}, &spec, 3).unwrap();
        let spec: payload::NodeSpec = payload::read(&bytes).unwrap();
        assert_eq!(spec.node, "n");
    }

    #[test]
    fn the_cloud_writes_its_own_topics_only() {
        let kind = Kind::new("device").unwrap();
        let device = device().to_string();
        assert!(check(&kind, &device).is_ok());
        let other = check(&Kind::new("pod").unwrap(), &device)
            .unwrap_err()
            .to_string();
        assert!(other.contains("of kind device, not pod"), "{other}");
        for topic in [Topic::Link {}, Topic::NodeStatus {}, Topic::NodeBeat {}] {
            assert!(check(&kind, &topic.to_string()).is_err(), "{topic}");
        }
        assert!(check(&kind, "app/x").is_err());
        assert!(check(&kind, "").is_err());
    }

    #[test]
    fn content_that_cannot_be_read_is_of_an_unknown_version() {
        let stored = stored(&device(), b"{{").unwrap().unwrap();
        assert_eq!(stored.hash, Hash::UNKNOWN);
        let error = payload(&device(), &put(&device(), "device", "[1]"), 1).unwrap_err();
        assert!(error.to_string().contains("not a JSON object"), "{error}");
    }
}
