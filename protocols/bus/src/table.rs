//! The whole table: the `edge/v1` tree, the `$hw` and `$ke` topics that KubeEdge clients know, and
//! the free `app/` space; with what each promises.

use crate::role::Who::{self, *};
use crate::topic::TREE;

/// Must, may or can a message of this topic not carry the retain flag?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// State: always retained, an empty payload clears it.
    Always,
    /// Either.
    Any,
    /// A passing message: never retained.
    Never,
}

/// What a PUBACK promises for a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk (fsync) before it is routed and acknowledged.
    Sync,
    /// Written to the log before it is acknowledged, on disk within a second.
    Lazy,
    /// In memory: its writer says it again whenever it connects.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Levels, with `{field}` for one free level and `#` for the rest.
    pub pattern: &'static str,
    /// Rust type of the JSON payload, or what the bytes are.
    pub payload: &'static str,
    /// Use of the retain flag.
    pub retain: Retain,
    /// What survives.
    pub durability: Durability,
    /// The QoS that our own clients use.
    pub qos: u8,
    /// Who may publish.
    pub writers: &'static [Who],
    /// Who may subscribe (operators and viewers read everything but sealed and stream topics).
    pub readers: &'static [Who],
    /// The component that misses no message of this topic: the broker queues for it from first boot.
    pub inbox: Option<&'static str>,
    /// What it says, in a sentence.
    pub about: &'static str,
}

const fn pass(
    pattern: &'static str,
    payload: &'static str,
    writers: &'static [Who],
    readers: &'static [Who],
    inbox: Option<&'static str>,
    about: &'static str,
) -> Row {
    Row {
        pattern,
        payload,
        retain: Retain::Never,
        durability: Durability::None,
        qos: 1,
        writers,
        readers,
        inbox,
        about,
    }
}

const IN: &[Who] = &[App, Operator, Mapper];
const OUT: &[Who] = &[App, Operator, Mapper];
const TWIN: &[Who] = &[DeviceTwin];
const BOX: Option<&str> = Some("devicetwin");

macro_rules! hw {
    ($id:literal) => {
        [
            pass(
                concat!("$hw/events/device/", $id, "/twin/update"),
                "hw::TwinUpdate",
                IN,
                TWIN,
                BOX,
                "KubeEdge: report actual values or wish expected ones.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/twin/get"),
                "hw::TwinGet",
                IN,
                TWIN,
                BOX,
                "KubeEdge: ask for the twin.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/state/update"),
                "hw::StateUpdate",
                IN,
                TWIN,
                BOX,
                "KubeEdge: say whether the device is online.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/twin/update/result"),
                "hw::TwinResult",
                TWIN,
                OUT,
                None,
                "KubeEdge: outcome of an update.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/twin/update/document"),
                "hw::TwinDocument",
                TWIN,
                OUT,
                None,
                "KubeEdge: last and current values after a change.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/twin/update/delta"),
                "hw::TwinDelta",
                TWIN,
                OUT,
                None,
                "KubeEdge: what differs between expected and actual.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/twin/get/result"),
                "hw::TwinGetResult",
                TWIN,
                OUT,
                None,
                "KubeEdge: the twin, or why not.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/state/update/result"),
                "hw::StateResult",
                TWIN,
                OUT,
                None,
                "KubeEdge: outcome of a state update.",
            ),
            pass(
                concat!("$hw/events/device/", $id, "/updated"),
                "hw::DeviceUpdated",
                TWIN,
                OUT,
                None,
                "KubeEdge: the device's attributes changed.",
            ),
            pass(
                concat!("$ke/events/device/", $id, "/data/update"),
                "hw::DataUpdate",
                IN,
                OUT,
                None,
                "KubeEdge: time series for local consumers.",
            ),
        ]
    };
}

static HW_ID: [Row; 10] = hw!("{id}");
static HW_NS: [Row; 10] = hw!("{ns}/{name}");

static FREE: &[Row] = &[
    pass(
        "$hw/events/node/{node}/membership/get",
        "hw::MembershipGet",
        IN,
        TWIN,
        BOX,
        "KubeEdge: ask for this node's devices.",
    ),
    pass(
        "$hw/events/node/{node}/membership/get/result",
        "hw::Membership",
        TWIN,
        OUT,
        None,
        "KubeEdge: this node's devices.",
    ),
    pass(
        "$hw/events/node/{node}/membership/updated",
        "hw::MembershipUpdated",
        TWIN,
        OUT,
        None,
        "KubeEdge: devices added or removed.",
    ),
    Row {
        pattern: "app/#",
        payload: "anything",
        retain: Retain::Any,
        durability: Durability::Sync,
        qos: 1,
        writers: &[App, Operator],
        readers: &[App, Operator],
        inbox: None,
        about: "Free for workloads and third parties, inside quotas.",
    },
];

/// All rows.
pub static TABLE: &[&[Row]] = &[TREE, &HW_ID, &HW_NS, FREE];

/// Every row, in order.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().flat_map(|part| part.iter())
}

/// The row of a concrete topic, if the table has one.
pub fn lookup(topic: &str) -> Option<&'static Row> {
    rows().find(|row| pattern_matches(row.pattern, topic))
}

/// Does a row's pattern cover this topic?
pub fn pattern_matches(pattern: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in pattern.split('/') {
        if part == "#" {
            return levels.next().is_some();
        }
        match levels.next() {
            Some(level) if !level.is_empty() && (part.starts_with('{') || part == level) => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The pattern as an MQTT filter, with `{field}` replaced by `own` where the field is named so,
/// and by `+` elsewhere.
pub fn filter_of(pattern: &str, own: &[(&str, &str)]) -> String {
    let level = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(field) => own
            .iter()
            .find(|(f, _)| *f == field)
            .map_or("+", |(_, v)| v)
            .to_owned(),
        None => part.to_owned(),
    };
    pattern.split('/').map(level).collect::<Vec<_>>().join("/")
}

/// The filters of everything that `component` may miss no message of.
pub fn inbox_filters(component: &str) -> Vec<String> {
    rows()
        .filter(|r| r.inbox == Some(component))
        .map(|r| filter_of(r.pattern, &[]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_at_most_one_row() {
        for a in rows() {
            let example = filter_of(a.pattern, &[]).replace(['+', '#'], "x");
            let hits: Vec<_> = rows()
                .filter(|b| pattern_matches(b.pattern, &example))
                .map(|r| r.pattern)
                .collect();
            assert_eq!(hits, [a.pattern], "{example}");
        }
    }

    #[test]
    fn state_has_one_writer_and_inboxes_are_never_retained() {
        for row in rows() {
            if row.retain == Retain::Always {
                assert_eq!(row.writers.len(), 1, "{}", row.pattern);
            }
            if row.inbox.is_some() {
                assert_eq!(row.retain, Retain::Never, "{}", row.pattern);
            }
        }
    }

    #[test]
    fn the_inbox_of_devicetwin_is_known_before_it_ever_connects() {
        let filters = inbox_filters("devicetwin");
        assert!(
            filters.contains(&"edge/v1/dev/+/+/+/report".to_owned()),
            "{filters:?}"
        );
        assert!(
            filters.contains(&"$hw/events/device/+/+/twin/update".to_owned()),
            "{filters:?}"
        );
    }

    #[test]
    fn lookup_finds_what_third_parties_use() {
        assert!(lookup("$hw/events/device/pump/twin/update").is_some());
        assert!(lookup("$hw/events/device/default/pump/twin/update/delta").is_some());
        assert!(lookup("app/x/y").is_some());
        assert!(lookup("app").is_none());
        assert!(lookup("other").is_none());
    }
}
