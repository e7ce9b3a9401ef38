//! Who somebody on the bus is, and what that lets them do. Access rules are read from the table;
//! nothing is allowed that a row does not name.

use crate::filter;
use crate::table::{self, Retain};
use serde::{Deserialize, Serialize};

/// What a client was admitted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The edge end of the cloud link.
    Link,
    /// The light kubelet.
    Edged,
    /// Twins and device assignment.
    DeviceTwin,
    /// One field protocol.
    Mapper,
    /// A workload or a third-party client.
    App,
    /// Somebody with root's or our own uid on the admin socket.
    Operator,
    /// Reads everything but sealed and stream topics, publishes nothing.
    Viewer,
}

/// Who a row names as writer or reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The link.
    Link,
    /// The light kubelet.
    Edged,
    /// The twin component.
    DeviceTwin,
    /// The mapper whose name stands at `{m}`; on rows without `{m}`, any mapper.
    Mapper,
    /// The component whose name stands at `{c}`.
    Component,
    /// Workloads and third parties.
    App,
    /// Operators.
    Operator,
    /// Everybody admitted.
    All,
}

/// A client as the broker knows it: from its token or the kernel, never from its own word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// Its name: the component's or mapper's, or the user's.
    pub name: String,
}

/// Why a publish or a subscription is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table has no such topic.
    #[error("topic {0:?} is not in the table; free topics live under app/")]
    NoSuchTopic(String),
    /// The role may not publish it.
    #[error("{who} may not publish {topic:?}")]
    NotWriter {
        /// Role and name.
        who: String,
        /// The topic.
        topic: String,
    },
    /// Nothing that the filter covers may be read.
    #[error("{who} may read nothing that {filter:?} covers")]
    NotReader {
        /// Role and name.
        who: String,
        /// The filter.
        filter: String,
    },
    /// State without the retain flag, or a passing message with it.
    #[error("{topic:?} must {} the retain flag", if *.must { "carry" } else { "not carry" })]
    WrongRetain {
        /// The topic.
        topic: String,
        /// Whether the flag is required.
        must: bool,
    },
}

impl Identity {
    /// An identity.
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self {
            role,
            name: name.into(),
        }
    }

    fn is(&self, who: Who) -> bool {
        match who {
            Who::All => true,
            // Every unit of ours, third-party mappers too, is a component under its own name.
            Who::Component => true,
            Who::Link => self.role == Role::Link,
            Who::Edged => self.role == Role::Edged,
            Who::DeviceTwin => self.role == Role::DeviceTwin,
            Who::Mapper => self.role == Role::Mapper,
            Who::App => self.role == Role::App,
            Who::Operator => self.role == Role::Operator,
        }
    }

    /// Levels of a row that must be this identity's own name.
    fn own(&self, who: Who) -> Vec<(&'static str, &str)> {
        match who {
            Who::Component => vec![("c", self.name.as_str())],
            Who::Mapper => vec![("m", self.name.as_str())],
            _ => vec![],
        }
    }

    /// Who this is, for messages: `mapper "modbus"`.
    pub fn describe(&self) -> String {
        format!("{:?} {:?}", self.role, self.name).to_lowercase()
    }

    /// May it publish `topic` with this retain flag?
    pub fn may_publish(&self, topic: &str, retain: bool) -> Result<&'static table::Row, Refusal> {
        let row = table::lookup(topic).ok_or_else(|| Refusal::NoSuchTopic(topic.to_owned()))?;
        let writes = |who: &Who| {
            self.is(*who) && filter::matches(&table::filter_of(row.pattern, &self.own(*who)), topic)
        };
        if self.role == Role::Viewer && !row.pattern.contains("/echo/")
            || !row.writers.iter().any(writes)
        {
            return Err(Refusal::NotWriter {
                who: self.describe(),
                topic: topic.to_owned(),
            });
        }
        match row.retain {
            Retain::Always if !retain => Err(Refusal::WrongRetain {
                topic: topic.to_owned(),
                must: true,
            }),
            Retain::Never if retain => Err(Refusal::WrongRetain {
                topic: topic.to_owned(),
                must: false,
            }),
            _ => Ok(row),
        }
    }

    /// The filters that cover all it may read.
    pub fn readable(&self) -> Vec<String> {
        let mut out = Vec::new();
        for row in table::rows() {
            let secret = row.pattern.starts_with(concat!("edge/v1", "/sealed/"));
            let stream = row.pattern.starts_with(concat!("edge/v1", "/stream/"));
            let echo = row.pattern.starts_with(concat!("edge/v1", "/echo/"));
            if matches!(self.role, Role::Viewer | Role::Operator) && !secret && !stream && !echo {
                out.push(table::filter_of(row.pattern, &[]));
                continue;
            }
            for who in self.reads(row) {
                out.push(table::filter_of(row.pattern, &self.own(who)));
            }
        }
        out
    }

    /// May it hold this subscription at all? What it may not read is also withheld message by
    /// message, so a wide filter such as `edge/v1/#` is granted and shows the part that is allowed.
    pub fn may_subscribe(&self, wanted: &str) -> Result<(), Refusal> {
        if self.readable().iter().any(|f| filter::overlap(f, wanted)) {
            Ok(())
        } else {
            Err(Refusal::NotReader {
                who: self.describe(),
                filter: wanted.to_owned(),
            })
        }
    }

    /// May this message be delivered to it?
    pub fn may_read(&self, topic: &str) -> bool {
        let Some(row) = table::lookup(topic) else {
            return false;
        };
        let hidden = ["/sealed/", "/stream/", "/echo/"]
            .iter()
            .any(|p| row.pattern.starts_with(&format!("edge/v1{p}")));
        if matches!(self.role, Role::Viewer | Role::Operator) && !hidden {
            return true;
        }
        self.reads(row)
            .any(|who| filter::matches(&table::filter_of(row.pattern, &self.own(who)), topic))
    }

    /// As what it may read a row: as a reader, and its own state as the writer, who re-reads it
    /// after a restart.
    fn reads<'a>(&'a self, row: &'a table::Row) -> impl Iterator<Item = Who> + 'a {
        let own: &[Who] = match row.retain {
            Retain::Always => row.writers,
            _ => &[],
        };
        row.readers
            .iter()
            .chain(own)
            .copied()
            .filter(|who| self.is(*who))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::ROOT;

    fn id(role: Role, name: &str) -> Identity {
        Identity::new(role, name)
    }

    #[test]
    fn a_mapper_publishes_its_own_devices_only() {
        let m = id(Role::Mapper, "modbus");
        assert!(
            m.may_publish(&format!("{ROOT}/dev/modbus/d/p/report"), false)
                .is_ok()
        );
        assert!(
            m.may_publish(&format!("{ROOT}/dev/opcua/d/p/report"), false)
                .is_err()
        );
        assert!(m.may_publish(&format!("{ROOT}/obj/pod/d/p"), true).is_err());
        assert!(m.may_publish(&format!("{ROOT}/twin/d/p"), true).is_err());
        assert!(
            m.may_publish(&format!("{ROOT}/sys/modbus/health"), true)
                .is_ok()
        );
        assert!(
            m.may_publish(&format!("{ROOT}/sys/link/health"), true)
                .is_err()
        );
        assert!(m.may_publish("nothing", false).is_err());
    }

    #[test]
    fn a_mapper_reads_its_own_devices_and_no_objects() {
        let m = id(Role::Mapper, "modbus");
        assert!(m.may_subscribe(&format!("{ROOT}/dev/modbus/#")).is_ok());
        assert!(m.may_subscribe(&format!("{ROOT}/dev/opcua/#")).is_err());
        assert!(m.may_subscribe(&format!("{ROOT}/obj/#")).is_err());
        assert!(m.may_subscribe(&format!("{ROOT}/sealed/#")).is_err());
        assert!(m.may_read(&format!("{ROOT}/dev/modbus/d/p/want")));
        assert!(!m.may_read(&format!("{ROOT}/dev/opcua/d/p/want")));
        assert!(!m.may_read(&format!("{ROOT}/sealed/secret/d/s")));
    }

    #[test]
    fn a_viewer_sees_all_but_secrets_and_streams_and_says_nothing() {
        let v = id(Role::Viewer, "v");
        assert!(v.may_subscribe(&format!("{ROOT}/#")).is_ok());
        assert!(v.may_read(&format!("{ROOT}/obj/pod/d/p")));
        assert!(v.may_read("$hw/events/device/p/twin/update/delta"));
        assert!(!v.may_read(&format!("{ROOT}/sealed/secret/d/s")));
        assert!(!v.may_read(&format!("{ROOT}/stream/00/in")));
        assert!(v.may_publish("app/x", false).is_err());
        assert!(
            v.may_publish(&format!("{ROOT}/twin/d/p/set"), false)
                .is_err()
        );
        assert!(v.may_publish(&format!("{ROOT}/echo/v/1"), false).is_ok());
    }

    #[test]
    fn an_app_has_its_space_the_twins_and_the_hw_topics() {
        let a = id(Role::App, "shop");
        assert!(a.may_publish("app/x", true).is_ok());
        assert!(a.may_publish("app/x", false).is_ok());
        assert!(
            a.may_publish("$hw/events/device/p/twin/update", false)
                .is_ok()
        );
        assert!(
            a.may_publish("$hw/events/device/p/twin/update/delta", false)
                .is_err()
        );
        assert!(a.may_subscribe(&format!("{ROOT}/twin/#")).is_ok());
        assert!(a.may_subscribe(&format!("{ROOT}/obj/#")).is_err());
    }

    #[test]
    fn a_writer_reads_its_own_state_back() {
        let l = id(Role::Link, "link");
        assert!(l.may_subscribe(&format!("{ROOT}/obj/+/+/+")).is_ok());
        assert!(l.may_read(&format!("{ROOT}/sealed/secret/d/s")));
        let m = id(Role::Mapper, "modbus");
        assert!(m.may_read(&format!("{ROOT}/dev/modbus/d/p/mark")));
        assert!(!m.may_read(&format!("{ROOT}/dev/opcua/d/p/mark")));
        assert!(!m.may_read(&format!("{ROOT}/obj/pod/d/p")));
    }

    #[test]
    fn state_needs_the_retain_flag_and_messages_must_not_have_it() {
        let l = id(Role::Link, "link");
        assert!(matches!(
            l.may_publish(&format!("{ROOT}/obj/pod/d/p"), false),
            Err(Refusal::WrongRetain { must: true, .. })
        ));
        let a = id(Role::App, "a");
        assert!(matches!(
            a.may_publish(&format!("{ROOT}/twin/d/p/set"), true),
            Err(Refusal::WrongRetain { must: false, .. })
        ));
    }
}
