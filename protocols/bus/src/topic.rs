//! The topic tree, declared once. The macro below turns each declaration into a variant of
//! [`Topic`] (built with `to_string`, read with `parse`) and a [`Row`] of [`TABLE`].

use crate::name::{Name, NameError, Scope, Slot, Word};
use crate::role::Who::{self, *};
use crate::table::{Durability, Retain, Row};
use std::fmt;

/// The first levels of every topic of ours.
pub const ROOT: &str = "edge/v1";

/// Why a text is not a topic of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It does not start with [`ROOT`].
    #[error("{0:?} is not under {ROOT}/")]
    NotOurs(String),
    /// No declaration has this shape.
    #[error("{0:?} is not a topic of the {ROOT} tree")]
    Unknown(String),
    /// The shape fits, but one level is no valid name.
    #[error("topic {topic:?}: {source}")]
    BadName {
        /// The whole topic.
        topic: String,
        /// Which level, and what is allowed.
        #[source]
        source: NameError,
    },
}

macro_rules! seg_write {
    ($f:ident, $lit:literal) => {
        write!($f, concat!("/", $lit))?
    };
    ($f:ident, $field:ident) => {
        write!($f, "/{}", $field)?
    };
}
macro_rules! seg_pattern {
    ($lit:literal) => {
        concat!("/", $lit)
    };
    ($field:ident) => {
        concat!("/{", stringify!($field), "}")
    };
}
macro_rules! seg_fits {
    ($seg:expr, $lit:literal) => {
        $seg == $lit
    };
    ($seg:expr, $field:ident) => {
        true
    };
}

macro_rules! topics {
    ($(
        $(#[doc = $about:literal])+
        $variant:ident { $($field:ident : $type:ty),* } = $($seg:tt)/ + ;
        $payload:literal, $retain:ident, $durability:ident, qos $qos:literal,
        $writers:expr => $readers:expr $(, inbox $inbox:literal)? ;
    )*) => {
        /// One topic of the tree, its levels checked.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Topic {
            $($(#[doc = $about])+ #[allow(missing_docs)] $variant { $($field: $type),* },)*
        }

        impl fmt::Display for Topic {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ROOT)?;
                match self {
                    $(Topic::$variant { $($field),* } => { $(seg_write!(f, $seg);)+ })*
                }
                Ok(())
            }
        }

        impl Topic {
            /// Reads a topic. Errors say which level is wrong.
            pub fn parse(text: &str) -> Result<Self, TopicError> {
                let rest = text
                    .strip_prefix(ROOT)
                    .and_then(|r| r.strip_prefix('/'))
                    .ok_or_else(|| TopicError::NotOurs(cut(text)))?;
                let segs: Vec<&str> = rest.split('/').collect();
                let mut why = None;
                $({
                    const LEN: usize = [$(seg_pattern!($seg)),+].len();
                    if segs.len() == LEN {
                        let mut at = 0usize;
                        let fits = true $(&& { at += 1; seg_fits!(segs[at - 1], $seg) })+;
                        if fits {
                            match Self::$variant(&segs) {
                                Ok(topic) => return Ok(topic),
                                Err(e) => why = why.or(Some(e)),
                            }
                        }
                    }
                })*
                match why {
                    Some(source) => Err(TopicError::BadName { topic: cut(text), source }),
                    None => Err(TopicError::Unknown(cut(text))),
                }
            }

            $(
                #[allow(non_snake_case, unused_variables, unused_mut, unused_assignments)]
                fn $variant(segs: &[&str]) -> Result<Self, NameError> {
                    let mut at = 0usize;
                    $(seg_read!(segs, at, $seg);)+
                    Ok(Topic::$variant { $($field: $field.parse::<$type>()?),* })
                }
            )*

            /// The row that this topic belongs to.
            pub fn row(&self) -> &'static Row {
                let mut at = 0usize;
                $(
                    if matches!(self, Topic::$variant { .. }) { return &TREE[at]; }
                    at += 1;
                )*
                &TREE[at - 1]
            }
        }

        /// The rows of the `edge/v1` tree, in the order of their declaration.
        pub static TREE: &[Row] = &[
            $(Row {
                pattern: concat!("edge/v1", $(seg_pattern!($seg)),+),
                payload: $payload,
                retain: Retain::$retain,
                durability: Durability::$durability,
                qos: $qos,
                writers: { const W: &[Who] = $writers; W },
                readers: { const R: &[Who] = $readers; R },
                inbox: topics!(@inbox $($inbox)?),
                about: concat!($($about),+),
            },)*
        ];
    };
    (@inbox) => { None };
    (@inbox $inbox:literal) => { Some($inbox) };
}
macro_rules! seg_read {
    ($segs:ident, $at:ident, $lit:literal) => {
        $at += 1;
    };
    ($segs:ident, $at:ident, $field:ident) => {
        let $field = $segs[$at];
        $at += 1;
    };
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

topics! {
    /// A component's own word on how it is; its will says `down`.
    Health { c: Name } = "sys" / c / "health";
    "payload::Health", Always, None, qos 1, &[Component] => &[All];

    /// A question to a component: ping, log-level, dump.
    Ask { c: Name } = "sys" / c / "ask";
    "payload::Ask", Never, None, qos 1, &[Operator, Link] => &[Component];

    /// A component's answer.
    Tell { c: Name } = "sys" / c / "tell";
    "payload::Tell", Never, None, qos 1, &[Component] => &[All];

    /// Identity of the broker's store, said by `broker`: `{"store_id": …}`. It comes at every
    /// connect: the sign, for a client without our library, to say its `none` topics again.
    Store { c: Name } = "sys" / c / "store";
    "store id", Always, None, qos 1, &[Component] => &[All];

    /// What the broker did not accept from a client, said by the broker: `{client, topic, why}`.
    Refused { c: Name } = "sys" / c / "refused";
    "client, topic, why", Never, None, qos 1, &[Component] => &[Component];

    /// A private way back to oneself: closes a snapshot of retained topics.
    Echo { c: Name, n: Word } = "echo" / c / n;
    "nonce", Never, None, qos 1, &[Component] => &[Component];

    /// State of the cloud link.
    Link {} = "link";
    "payload::LinkState", Always, None, qos 1, &[Link] => &[All];

    /// What the cloud wants of this node: labels, taints, configuration.
    NodeSpec {} = "node" / "spec";
    "payload::NodeSpec", Always, Sync, qos 1, &[Link] => &[Edged];

    /// What this node is: Kubernetes' NodeStatus.
    NodeStatus {} = "node" / "status";
    "payload::NodeStatus", Always, Lazy, qos 1, &[Edged] => &[Link];

    /// Heartbeat, sent only after a finished pass over the runtime.
    NodeBeat {} = "node" / "beat";
    "payload::Beat", Never, None, qos 1, &[Edged] => &[Link];

    /// A Kubernetes object, trimmed, as the cloud has it. `ns` is `_` for cluster-scoped kinds.
    Obj { kind: Name, ns: Scope, name: Name } = "obj" / kind / ns / name;
    "payload::Obj", Always, Sync, qos 1, &[Link] => &[Edged, DeviceTwin];

    /// An object sealed to this node's key: Secrets and tokens.
    Sealed { kind: Name, ns: Scope, name: Name } = "sealed" / kind / ns / name;
    "payload::Sealed", Always, Sync, qos 1, &[Link] => &[Edged, DeviceTwin];

    /// This store holds, or once held, a complete mirror of that kind.
    Sync { kind: Name } = "sync" / kind;
    "payload::SyncMark", Always, Sync, qos 1, &[Link] => &[Edged, DeviceTwin];

    /// Status of one pod, as a kubelet writes it.
    PodStatus { ns: Name, name: Name } = "pod" / ns / name / "status";
    "payload::PodStatus", Always, Lazy, qos 1, &[Edged] => &[Link];

    /// A Kubernetes Event on its way up; the same event has the same name.
    Event { c: Name } = "event" / c;
    "payload::Event", Never, None, qos 1, &[Component] => &[Link], inbox "link";

    /// Bytes of one stream towards edged: slots 00-23 for the link, 24-31 for the command line.
    StreamIn { slot: Slot } = "stream" / slot / "in";
    "binary", Never, None, qos 1, &[Link, Operator] => &[Edged];

    /// Bytes of one stream from edged.
    StreamOut { slot: Slot } = "stream" / slot / "out";
    "binary", Never, None, qos 1, &[Edged] => &[Link, Operator];

    /// What a mapper is and can do.
    MapperHello { m: Name } = "mapper" / m / "hello";
    "payload::Hello", Always, None, qos 1, &[Mapper] => &[DeviceTwin];

    /// Devices that a mapper has discovered, as one whole list.
    MapperFound { m: Name } = "mapper" / m / "found";
    "payload::Found", Always, None, qos 1, &[Mapper] => &[DeviceTwin, Link];

    /// A device assigned to mapper `m`: model and instance merged.
    DevConfig { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "config";
    "payload::DeviceConfig", Always, Sync, qos 1, &[DeviceTwin] => &[Mapper];

    /// What the device's properties should be; written once for each new `gen`.
    DevWant { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "want";
    "payload::Want", Always, Sync, qos 1, &[DeviceTwin] => &[Mapper];

    /// Which generations the mapper has acted on, so that its restart repeats no write.
    DevMark { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "mark";
    "payload::Mark", Always, Sync, qos 1, &[Mapper] => &[Mapper];

    /// What a mapper read or wrote.
    DevReport { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "report";
    "payload::Report", Never, None, qos 1, &[Mapper] => &[DeviceTwin], inbox "devicetwin";

    /// Whether the device answers.
    DevState { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "state";
    "payload::DeviceState", Always, None, qos 1, &[Mapper] => &[DeviceTwin];

    /// Samples, as fast as they come.
    DevData { m: Name, ns: Name, name: Name, stream: Word } = "dev" / m / ns / name / "data" / stream;
    "payload::Sample list", Never, None, qos 0, &[Mapper] => &[App, Link];

    /// Something happened on the device.
    DevEvent { m: Name, ns: Name, name: Name, t: Word } = "dev" / m / ns / name / "event" / t;
    "payload::DeviceEvent", Never, None, qos 1, &[Mapper] => &[App, Link];

    /// Something is wrong with the device, until cleared.
    DevAlert { m: Name, ns: Name, name: Name, t: Word } = "dev" / m / ns / name / "alert" / t;
    "payload::Alert", Always, None, qos 1, &[Mapper] => &[App, Link];

    /// A method call to a mapper.
    DevCall { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "call";
    "payload::Call", Never, None, qos 1, &[DeviceTwin] => &[Mapper];

    /// Its outcome.
    DevCallDone { m: Name, ns: Name, name: Name } = "dev" / m / ns / name / "call" / "done";
    "payload::CallDone", Never, None, qos 1, &[Mapper] => &[DeviceTwin];

    /// What a twin's properties should be, and who said so last.
    TwinDesired { ns: Name, name: Name } = "twin" / ns / name / "desired";
    "payload::TwinDesired", Always, Sync, qos 1, &[DeviceTwin] => &[All];

    /// The twin: desired, reported and their difference in one document.
    Twin { ns: Name, name: Name } = "twin" / ns / name;
    "payload::Twin", Always, Lazy, qos 1, &[DeviceTwin] => &[All];

    /// A wish for desired values, from an app on this node.
    TwinSet { ns: Name, name: Name } = "twin" / ns / name / "set";
    "payload::TwinSet", Never, None, qos 1, &[App, Operator, Link] => &[DeviceTwin], inbox "devicetwin";

    /// Its outcome.
    TwinSetDone { ns: Name, name: Name } = "twin" / ns / name / "set" / "done";
    "payload::TwinSetDone", Never, None, qos 1, &[DeviceTwin] => &[App, Link, Operator];

    /// A wish for a method call, from an app on this node.
    TwinCall { ns: Name, name: Name } = "twin" / ns / name / "call";
    "payload::Call", Never, None, qos 1, &[App, Operator, Link] => &[DeviceTwin], inbox "devicetwin";

    /// Its outcome.
    TwinCallDone { ns: Name, name: Name } = "twin" / ns / name / "call" / "done";
    "payload::CallDone", Never, None, qos 1, &[DeviceTwin] => &[App, Link, Operator];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn topics_are_built_and_read_back() {
        let all = [
            Topic::Health { c: n("modbus") },
            Topic::Link {},
            Topic::Obj {
                kind: n("device"),
                ns: "plant".parse().unwrap(),
                name: n("pump.1"),
            },
            Topic::Obj {
                kind: n("namespace"),
                ns: Scope::cluster(),
                name: n("a"),
            },
            Topic::DevReport {
                m: n("modbus"),
                ns: n("d"),
                name: n("p"),
            },
            Topic::DevCall {
                m: n("m"),
                ns: n("d"),
                name: n("p"),
            },
            Topic::DevCallDone {
                m: n("m"),
                ns: n("d"),
                name: n("p"),
            },
            Topic::Twin {
                ns: n("d"),
                name: n("p"),
            },
            Topic::StreamIn {
                slot: Slot::new(3).unwrap(),
            },
        ];
        for topic in all {
            let text = topic.to_string();
            assert_eq!(Topic::parse(&text).unwrap(), topic, "{text}");
            assert!(
                crate::table::pattern_matches(topic.row().pattern, &text),
                "{text}"
            );
        }
        assert_eq!(
            Topic::DevWant {
                m: n("modbus"),
                ns: n("default"),
                name: n("pump")
            }
            .to_string(),
            format!("{ROOT}/dev/modbus/default/pump/want")
        );
    }

    #[test]
    fn what_is_not_a_topic_says_why() {
        assert!(matches!(Topic::parse("app/x"), Err(TopicError::NotOurs(_))));
        assert!(matches!(
            Topic::parse(&format!("{ROOT}/nothing")),
            Err(TopicError::Unknown(_))
        ));
        let said = Topic::parse(&format!("{ROOT}/twin/default/Pump"))
            .unwrap_err()
            .to_string();
        assert!(said.contains("\"Pump\""), "{said}");
        assert!(Topic::parse("édge").is_err());
    }
}
