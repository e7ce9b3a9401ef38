//! Messages of the bus, read into inputs of the core. What cannot be read becomes an input too:
//! its author is told.

use crate::core::Input;
use edgebus_bus::payload::{PayloadError, read};
use edgebus_bus::{DeviceId, Topic};
use serde::de::DeserializeOwned;

/// Objects, mappers and their words on devices: what is read as a live collection.
pub const STATE: &[&str] = &[
    "obj/device/+/+",
    "obj/devicemodel/+/+",
    "sync/device",
    "sync/devicemodel",
    "mapper/+/hello",
    "sys/+/health",
    "dev/+/+/+/state",
];
/// Our own retained topics: read at each connect.
pub const OWN: &[&str] = &["twin/+/+/desired", "twin/+/+"];
/// What mappers answer to calls.
pub const ANSWERS: &[&str] = &["dev/+/+/+/call/done"];

/// The filters of a list above, under the root.
pub fn filters(list: &[&str]) -> Vec<String> {
    list.iter()
        .map(|f| format!("{}/{f}", edgebus_bus::ROOT))
        .collect()
}

fn state<T: DeserializeOwned>(
    topic: &Topic,
    payload: Option<&[u8]>,
    make: impl FnOnce(Option<T>) -> Input,
) -> Input {
    match payload.map(read::<T>).transpose() {
        Ok(value) => make(value),
        Err(e) => broken(topic, &e),
    }
}

fn broken(topic: &Topic, why: &PayloadError) -> Input {
    Input::Broken {
        topic: topic.clone(),
        why: format!("the payload is not as it should be: {why}"),
    }
}

/// Reads one message; `None` for topics that say nothing here. No payload, or an empty one, means
/// that the topic was cleared.
pub fn input(topic: &str, payload: Option<&[u8]>) -> Option<Input> {
    let payload = payload.filter(|p| !p.is_empty());
    if topic.starts_with("$hw/") {
        return Some(Input::Hw {
            topic: topic.to_owned(),
            payload: payload.unwrap_or_default().to_vec(),
        });
    }
    let parsed = Topic::parse(topic).ok()?;
    let t = &parsed;
    let device = |ns: &edgebus_bus::Name, name: &edgebus_bus::Name| DeviceId {
        ns: ns.clone(),
        name: name.clone(),
    };
    Some(match t {
        Topic::Obj { kind, ns, name } => {
            let id = DeviceId::new(ns.as_str(), name.as_str()).ok()?;
            match kind.as_str() {
                "device" => state(t, payload, |o| Input::Device(id, o)),
                "devicemodel" => state(t, payload, |o| Input::Model(id, o)),
                _ => return None,
            }
        }
        Topic::Sync { kind } => {
            let kind = kind.to_string();
            state(t, payload, |mark| Input::Sync(kind, mark))
        }
        Topic::MapperHello { m } => state(t, payload, |h| Input::Hello(m.clone(), h)),
        Topic::Health { c } => state(t, payload, |h| Input::Health(c.clone(), h)),
        Topic::DevState { m, ns, name } => {
            state(t, payload, |s| Input::State(m.clone(), device(ns, name), s))
        }
        Topic::TwinDesired { ns, name } => {
            let hash = crate::condition::hash(payload?);
            state(t, payload, |d| {
                Input::OwnDesired(device(ns, name), hash, d.unwrap_or_default())
            })
        }
        Topic::Twin { ns, name } => {
            let hash = crate::condition::hash(payload?);
            state(t, payload, |d| {
                Input::OwnTwin(device(ns, name), hash, d.unwrap_or_default())
            })
        }
        Topic::DevReport { m, ns, name } => match read(payload.unwrap_or_default()) {
            Ok(report) => Input::Report(m.clone(), device(ns, name), report),
            Err(e) => broken(t, &e),
        },
        Topic::TwinSet { ns, name } => match read(payload.unwrap_or_default()) {
            Ok(set) => Input::Set(device(ns, name), set),
            Err(e) => broken(t, &e),
        },
        Topic::TwinCall { ns, name } => match read(payload.unwrap_or_default()) {
            Ok(call) => Input::Call(device(ns, name), call),
            Err(e) => broken(t, &e),
        },
        Topic::DevCallDone { m, ns, name } => match read(payload.unwrap_or_default()) {
            Ok(done) => Input::CallDone(m.clone(), device(ns, name), done),
            Err(e) => broken(t, &e),
        },
        _ => return None,
    })
}
