//! What is wrong or noteworthy with a device, as Kubernetes conditions, and the Events that tell
//! of it.

use crate::assign::{Mappers, PATIENCE_MS};
use crate::device::Device;
use crate::merged::{Merged, Problem};
use crate::time::Now;
use edgebus_api::API_VERSION;
use edgebus_bus::DeviceId;
use edgebus_bus::payload::{Condition, DeviceUp, Event, Regarding, Source};

/// Longest message of a condition or note of an Event (Kubernetes allows 1024 bytes in a note).
const MESSAGE_BYTES: usize = 1000;
/// `protocolName` of devices that clients on the node's own bus serve.
pub const BUS_PROTOCOL: &str = "mqtt";

/// A condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
    /// Worth a Warning when it is news.
    warns: bool,
}

impl Found {
    fn new(
        kind: &'static str,
        status: &'static str,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self {
            kind,
            status,
            reason,
            message: cut(&message),
            warns: false,
        }
    }
    fn wrong(kind: &'static str, problems: &[Problem]) -> Self {
        let all: Vec<_> = problems.iter().map(|p| p.message.as_str()).collect();
        Self {
            kind,
            status: "False",
            reason: problems.first().map_or("Wrong", |p| p.reason),
            message: cut(&all.join("; ")),
            warns: true,
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES {
        return text.to_owned();
    }
    let end = (0..MESSAGE_BYTES - 3)
        .rev()
        .find(|n| text.is_char_boundary(*n))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

/// What conditions are found from, besides the device.
pub struct Around<'a> {
    /// All mappers.
    pub mappers: &'a Mappers,
    /// Why the model cannot be used, or that it is not here.
    pub model: Result<(), Problem>,
    /// Whether a model that is not here does not exist.
    pub models_complete: bool,
    /// The moment.
    pub now: Now,
}

/// All conditions of a device. `Configured`, `Online` and `Synced` are always there; the others only
/// where there is something to say.
pub fn find(device: &Device, around: &Around) -> Vec<Found> {
    let mut found = vec![configured(device, around), online(device)];
    if !device.refused.is_empty() {
        found.push(Found::wrong("DesiredAccepted", &device.refused));
    }
    found.push(synced(device));
    found.extend(local(device));
    found
}

fn configured(device: &Device, around: &Around) -> Found {
    const KIND: &str = "Configured";
    if let Some(problem) = &device.unreadable {
        return Found::wrong(KIND, std::slice::from_ref(problem));
    }
    if let Err(problem) = &around.model {
        if problem.reason == "NoModel" && !around.models_complete {
            return Found::new(KIND, "Unknown", "WaitingForModel", problem.message.clone());
        }
        return Found::wrong(KIND, std::slice::from_ref(problem));
    }
    let Some(merged) = &device.merged else {
        return Found::new(
            KIND,
            "Unknown",
            "Waiting",
            "object and model are being read".into(),
        );
    };
    if !merged.problems.is_empty() {
        return Found::wrong(KIND, &merged.problems);
    }
    let protocol = &merged.protocol;
    match &device.mapper {
        Some(name) => {
            let away = around.mappers.get(name).is_none_or(|m| m.hello.is_none());
            let patient = device
                .waiting_since
                .is_none_or(|since| around.now.0 - since < PATIENCE_MS);
            if away && !patient {
                let message = format!(
                    "mapper {:?} served this device and is not here any more{}",
                    name.as_str(),
                    served(around)
                );
                return Found::wrong(
                    KIND,
                    &[Problem {
                        reason: "MapperGone",
                        message,
                    }],
                );
            }
            let message = format!("mapper {:?} serves it over {protocol}", name.as_str());
            Found::new(KIND, "True", "Assigned", message)
        }
        None if protocol.eq_ignore_ascii_case(BUS_PROTOCOL) => Found::new(
            KIND,
            "True",
            "OnTheBus",
            "clients on this node's bus serve it ($hw/events/device/… or twin topics)".into(),
        ),
        None => no_mapper(device, merged, around),
    }
}

fn no_mapper(device: &Device, merged: &Merged, around: &Around) -> Found {
    const KIND: &str = "Configured";
    let protocol = &merged.protocol;
    let full = around.mappers.values().any(|m| m.serves(protocol));
    let message = if full {
        format!(
            "every mapper on this node that serves protocol {protocol:?} has as many devices as it can take"
        )
    } else {
        format!(
            "no mapper on this node serves protocol {protocol:?}{}",
            served(around)
        )
    };
    let patient = device
        .waiting_since
        .is_none_or(|since| around.now.0 - since < PATIENCE_MS);
    if patient && !full {
        return Found::new(KIND, "Unknown", "WaitingForMapper", message);
    }
    let reason = if full { "MappersFull" } else { "NoMapper" };
    Found::wrong(KIND, &[Problem { reason, message }])
}

fn served(around: &Around) -> String {
    let mut all: Vec<_> = around
        .mappers
        .values()
        .filter_map(|m| m.hello.as_ref())
        .map(|h| h.protocol.as_str())
        .collect();
    all.sort_unstable();
    all.dedup();
    match all.is_empty() {
        true => format!(" (none is connected; protocol {BUS_PROTOCOL:?} needs none)"),
        false => format!(
            " (served here: {}; protocol {BUS_PROTOCOL:?} needs none)",
            all.join(", ")
        ),
    }
}

fn online(device: &Device) -> Found {
    const KIND: &str = "Online";
    let why = |usual: &str| device.why.clone().unwrap_or_else(|| usual.to_owned());
    match device.state {
        DeviceUp::Online => Found::new(KIND, "True", "Online", why("it answers")),
        DeviceUp::Unknown => Found::new(KIND, "Unknown", "Unknown", why("nobody has said yet")),
        DeviceUp::Offline => {
            let message = why("it does not answer");
            Found::wrong(
                KIND,
                &[Problem {
                    reason: "Offline",
                    message,
                }],
            )
        }
        DeviceUp::Unhealthy => {
            let message = why("it answers with errors");
            Found::wrong(
                KIND,
                &[Problem {
                    reason: "Unhealthy",
                    message,
                }],
            )
        }
    }
}

fn synced(device: &Device) -> Found {
    const KIND: &str = "Synced";
    let wanted = &device.desired.doc.props;
    if !device.refused.is_empty() {
        let all: Vec<_> = device.refused.iter().map(|p| p.message.as_str()).collect();
        return Found::new(
            KIND,
            "False",
            "DesiredRefused",
            format!("not all desired values could be taken: {}", all.join("; ")),
        );
    }
    if wanted.is_empty() {
        return Found::new(
            KIND,
            "True",
            "NothingDesired",
            "no property has a desired value".into(),
        );
    }
    let late: Vec<_> = wanted
        .iter()
        .filter(|(name, _)| !device.reached(name))
        .collect();
    if late.is_empty() {
        return Found::new(
            KIND,
            "True",
            "Reached",
            "every desired value is there".into(),
        );
    }
    let mut reason = "Pending";
    let mut parts = Vec::new();
    for (name, desired) in late.iter().take(10) {
        let reported = device.reported.get(name);
        let is = reported
            .and_then(|r| r.value.as_ref())
            .map_or("not known yet".to_owned(), |v| format!("{v}"));
        let failure = reported.and_then(|r| r.write_failure());
        let cause = match failure {
            Some(word) => {
                reason = word;
                reported
                    .and_then(|r| r.cause.as_deref())
                    .map(|c| format!(" ({c})"))
            }
            None => None,
        };
        parts.push(format!(
            "{name:?} should be {} and is {is}{}",
            desired.value,
            cause.unwrap_or_default()
        ));
    }
    Found::new(KIND, "False", reason, parts.join("; "))
}

fn local(device: &Device) -> Option<Found> {
    let parts: Vec<_> = device
        .desired
        .doc
        .props
        .iter()
        .filter(|(_, d)| d.source == Source::Local)
        .take(10)
        .map(|(name, d)| match &d.spec_seen {
            Some(spec) => format!(
                "{name:?} is {} by a client on the node; the API says {spec:?}",
                d.value
            ),
            None => format!("{name:?} is {} by a client on the node", d.value),
        })
        .collect();
    (!parts.is_empty())
        .then(|| Found::new("LocalOverride", "True", "SetOnTheNode", parts.join("; ")))
}

/// Gives the conditions their times: a status that has not changed keeps its own. Returns also
/// what is news and warns.
pub fn settle(before: &[Condition], found: Vec<Found>, now: Now) -> (Vec<Condition>, Vec<Problem>) {
    let mut news = Vec::new();
    let conditions = found
        .into_iter()
        .map(|f| {
            let old = before.iter().find(|c| c.kind == f.kind);
            let same = old.is_some_and(|c| c.reason == f.reason && c.message == f.message);
            if f.warns && !same {
                news.push(Problem {
                    reason: f.reason,
                    message: f.message.clone(),
                });
            }
            Condition {
                last_transition_time: old
                    .filter(|c| c.status == f.status)
                    .map_or_else(|| now.text(), |c| c.last_transition_time.clone()),
                kind: f.kind.to_owned(),
                status: f.status.to_owned(),
                reason: f.reason.to_owned(),
                message: f.message,
            }
        })
        .collect();
    (conditions, news)
}

/// An Event about a device. Its name is made of what it says, so that a repeat is the same Event;
/// `of` tells apart what would otherwise read the same.
pub fn event(id: &DeviceId, uid: &str, kind: &str, problem: &Problem, of: &str, now: Now) -> Event {
    let says = format!("{uid}\n{}\n{}\n{of}", problem.reason, problem.message);
    let mut name = id.name.to_string();
    // 253 characters in all, and the cut must not end on a dot or a dash.
    name.truncate(230);
    let name = name.trim_end_matches(['.', '-']);
    Event {
        name: format!("{name}.{:016x}", hash(says.as_bytes())),
        regarding: Regarding {
            api_version: API_VERSION.to_owned(),
            kind: "Device".to_owned(),
            namespace: id.ns.to_string(),
            name: id.name.to_string(),
            uid: uid.to_owned(),
        },
        kind: kind.to_owned(),
        reason: problem.reason.to_owned(),
        note: cut(&problem.message),
        at: now.text(),
        count: 1,
    }
}

/// FNV-1a: the same in every build, which std's hasher does not promise.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_does_not_change_keeps_its_time_and_is_told_once() {
        let wrong = || {
            Found::wrong(
                "Configured",
                &[Problem {
                    reason: "NoModel",
                    message: "m".into(),
                }],
            )
        };
        let (first, news) = settle(&[], vec![wrong()], Now(0));
        assert_eq!(news.len(), 1);
        let (second, news) = settle(&first, vec![wrong()], Now(5000));
        assert_eq!((second, news.len()), (first.clone(), 0));
        let right = Found::new("Configured", "True", "Assigned", "x".into());
        let (third, news) = settle(&first, vec![right], Now(5000));
        assert_eq!(news.len(), 0);
        assert_ne!(third[0].last_transition_time, first[0].last_transition_time);
    }

    #[test]
    fn an_event_that_says_the_same_has_the_same_valid_name() {
        let id = DeviceId::new("default", &format!("{}.a", "x".repeat(229))).unwrap();
        let problem = Problem {
            reason: "NoModel",
            message: "é".repeat(2000),
        };
        let a = event(&id, "u", "Warning", &problem, "", Now(0));
        let b = event(&id, "u", "Warning", &problem, "", Now(9));
        assert_eq!(a.name, b.name);
        assert!(edgebus_bus::Name::new(&a.name).is_ok(), "{}", a.name);
        assert!(a.note.len() <= 1024);
        assert_ne!(
            a.name,
            event(&id, "v", "Warning", &problem, "", Now(0)).name
        );
    }
}
