//! The table in words: for `edgebus explain TOPIC` and the reference page.

use crate::role::Who;
use crate::table::{self, Durability, Retain, Row};

fn whos(list: &[Who]) -> String {
    list.iter()
        .map(|w| format!("{w:?}").to_lowercase())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A payload as it could be, by the name in the table: those that the tests pin.
fn example(payload: &str) -> Option<&'static str> {
    macro_rules! golden {
        ($($name:literal),* $(,)?) => {
            match payload.strip_prefix("payload::")? {
                $($name => Some(include_str!(concat!("../tests/golden/", $name, ".json"))),)*
                "Sample list" => Some(include_str!("../tests/golden/Sample-list.json")),
                _ => None,
            }
        };
    }
    golden!(
        "Alert",
        "Ask",
        "Beat",
        "Call",
        "CallDone",
        "DeviceConfig",
        "DeviceEvent",
        "DeviceState",
        "Event",
        "Found",
        "Health",
        "Hello",
        "LinkState",
        "Mark",
        "NodeSpec",
        "NodeStatus",
        "Obj",
        "PodStatus",
        "Report",
        "Sealed",
        "SyncMark",
        "Tell",
        "Twin",
        "TwinDesired",
        "TwinSet",
        "TwinSetDone",
        "Want",
    )
}

/// The example payload of a topic or a pattern, if exactly one row fits and its payload is JSON.
pub fn example_of(asked: &str) -> Option<&'static str> {
    let mut fits =
        table::rows().filter(|r| table::pattern_matches(r.pattern, asked) || r.pattern == asked);
    match (fits.next(), fits.next()) {
        (Some(row), None) => example(row.payload),
        _ => None,
    }
}

/// One row in words.
pub fn row(row: &Row) -> String {
    let retain = match row.retain {
        Retain::Always => "always (an empty payload clears it)",
        Retain::Any => "as the publisher likes",
        Retain::Never => "never",
    };
    let durability = match (row.retain, row.durability) {
        (Retain::Never, _) => "a passing message",
        (_, Durability::Sync) => "sync: on disk before it is routed and acknowledged",
        (_, Durability::Lazy) => {
            "lazy: a killed process loses nothing, power loss at most the last second"
        }
        (_, Durability::None) => "none: its writer repeats it at every connect",
    };
    let inbox = row.inbox.map(|c| {
        format!("\n  inbox       {c} (misses no message; a full inbox refuses the publisher)")
    });
    format!(
        "{}\n  {}\n  payload     {}\n  retained    {retain}\n  durability  {durability}\n  QoS         {}\n  written by  {}\n  read by     {}{}",
        row.pattern,
        row.about.trim(),
        row.payload,
        row.qos,
        whos(row.writers),
        whos(row.readers),
        inbox.unwrap_or_default(),
    )
}

/// What the table says of a topic, a filter or a word in one; empty if nothing fits.
pub fn explain(asked: &str) -> Vec<String> {
    let exact: Vec<_> = table::rows()
        .filter(|r| table::pattern_matches(r.pattern, asked) || r.pattern == asked)
        .collect();
    let rows = if exact.is_empty() {
        let overlaps = |r: &&Row| crate::filter::overlap(&table::filter_of(r.pattern, &[]), asked);
        let found: Vec<_> = table::rows().filter(overlaps).collect();
        if found.is_empty() {
            table::rows()
                .filter(|r| r.pattern.contains(asked))
                .collect()
        } else {
            found
        }
    } else {
        exact
    };
    rows.into_iter().map(row).collect()
}

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "| topic | retained | durability | payload | writer | readers | inbox |\n|---|---|---|---|---|---|---|\n",
    );
    for r in table::rows() {
        out += &format!(
            "| `{}` | {:?} | {:?} | {} | {} | {} | {} |\n",
            r.pattern,
            r.retain,
            r.durability,
            r.payload,
            whos(r.writers),
            whos(r.readers),
            r.inbox.unwrap_or("–"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_a_filter_and_a_word_are_explained() {
        assert!(explain("edge/v1/twin/default/pump")[0].contains("devicetwin"));
        assert!(explain("edge/v1/dev/#").len() > 5);
        assert!(!explain("delta").is_empty());
        assert!(explain("no such thing").is_empty());
    }

    #[test]
    fn every_json_payload_has_an_example() {
        for row in table::rows().filter(|r| r.payload.starts_with("payload::")) {
            let example = example_of(row.pattern).unwrap_or_else(|| panic!("{}", row.payload));
            let _: serde_json::Value = serde_json::from_str(example).unwrap();
        }
        let set = example_of("edge/v1/twin/default/pump/set").unwrap();
        assert!(set.contains("\"props\""), "{set}");
        assert_eq!(example_of("edge/v1/dev/#"), None);
    }
}
