//! What follows from what is known: which mapper serves a device, and the documents that are to lie
//! on the bus. Everything here can be done again at any time with the same outcome.

use crate::assign::{self, Mapper, PATIENCE_MS};
use crate::condition::{self, Around, BUS_PROTOCOL};
use crate::core::{Core, Out};
use crate::device::{Device, OnBus};
use crate::merged::{self, Problem};
use crate::time::Now;
use edgebus_bus::payload::{self, DeviceUp};
use edgebus_bus::{DeviceId, Name, Topic};
use edgebus_hw as hw;
use serde::Serialize;

/// Devices whose messages are made at a time.
const AT_A_TIME: usize = 64;

impl Core {
    /// Brings a device's object, model and mapper together, so that requests find it ready.
    pub(crate) fn prepare(&mut self, id: &DeviceId, now: Now) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        if !self.is_ready() || !device.stale || device.gone {
            return;
        }
        let Some(object) = &device.object else {
            return;
        };
        let model = device
            .model()
            .and_then(|name| self.models.get(&sibling(id, name)?));
        let merged = match model {
            Some(Ok(model)) => match object.read() {
                Ok(object) => merged::merge(&device.uid, &object, model),
                Err(_) => return,
            },
            // The last good configuration stays in force; a condition says why.
            _ => return,
        };
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        device.stale = false;
        let (overrode, refused) = device.desired.apply_spec(&merged, &mut self.gens, now);
        device.desired.doc.uid = device.uid.clone();
        device
            .reported
            .retain(|name, _| merged.props.contains_key(name));
        device.refused = refused;
        device.merged = Some(merged);
        let uid = device.uid.clone();
        for o in overrode {
            let problem = Problem {
                reason: "OverrodeLocal",
                message: format!(
                    "property {:?}: the API's new desired value {} replaced {}, which a client on the node had set",
                    o.property, o.spec, o.local
                ),
            };
            let of = format!("{}/{}", o.r#gen.store, o.r#gen.n);
            self.tell(id, &uid, "Warning", &problem, &of, now);
        }
        self.assign(id, now);
    }

    fn assign(&mut self, id: &DeviceId, now: Now) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        let Some(merged) = &device.merged else {
            return;
        };
        let load = |name: &Name| {
            let all = self.devices.values();
            all.filter(|d| d.mapper.as_ref() == Some(name)).count()
        };
        let chosen = assign::choose(
            &self.mappers,
            &merged.protocol,
            device.mapper.as_ref(),
            device.waiting_since,
            load,
            now,
        );
        let is_here = chosen
            .as_ref()
            .is_some_and(|n| self.mappers.get(n).is_some_and(|m| m.hello.is_some()));
        let needs_one = !merged.protocol.eq_ignore_ascii_case(BUS_PROTOCOL);
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        if device.mapper != chosen {
            device.config_on_bus = None;
            device.want_on_bus = None;
            if chosen.is_none() {
                set_state(device, DeviceUp::Unknown, None, now);
            }
            device.mapper = chosen;
        }
        if is_here || !needs_one {
            device.waiting_since = None;
            self.rechecks.remove(id);
        } else {
            let since = *device.waiting_since.get_or_insert(now.0);
            if now.0 - since < PATIENCE_MS {
                self.rechecks.insert(id.clone(), since + PATIENCE_MS);
            }
        }
    }

    /// Whether [`Core::flush`] has more to say at once.
    pub fn has_more(&self) -> bool {
        self.is_settled() && !self.dirty.is_empty()
    }

    /// What follows from all that happened, to be published in this order: that of some devices,
    /// so that the messages of a thousand need not be held at a time. See [`Core::has_more`].
    pub fn flush(&mut self, now: Now) -> Vec<Out> {
        if !self.is_settled() {
            return vec![];
        }
        let due: Vec<_> = self
            .rechecks
            .iter()
            .filter(|(_, at)| **at <= now.0)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.rechecks.remove(&id);
            self.dirty.insert(id);
        }
        let mut puts = Vec::new();
        for _ in 0..AT_A_TIME {
            let Some(id) = self.dirty.pop_first() else {
                break;
            };
            self.settle(&id, now, &mut puts);
        }
        // Events first: a crash in between repeats an Event, which has the same name, and never
        // loses one. Answers last: they promise what was put before them.
        let mut out = std::mem::take(&mut self.events);
        out.append(&mut puts);
        if self.dirty.is_empty() {
            out.extend(self.members_changed(now));
            out.append(&mut self.answers);
        }
        out
    }

    fn settle(&mut self, id: &DeviceId, now: Now, out: &mut Vec<Out>) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        if device.gone {
            return self.remove(id, out);
        }
        if device.object.is_none() && device.unreadable.is_none() {
            return;
        }
        self.prepare(id, now);
        self.assign(id, now);
        if let Some(device) = self.devices.get_mut(id) {
            device.note_changes();
        }
        self.restate(id, now);
        self.recondition(id, now);
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        let topics = Topics::of(id);
        let stale_places: Vec<_> = place(device);
        if !device.desired.doc.props.is_empty()
            || !device.desired.placed.is_empty()
            || device.desired_on_bus.is_some()
        {
            put(
                &mut device.desired_on_bus,
                &topics.desired(),
                &device.desired,
                out,
            );
        }
        if let (Some(merged), Some(mapper)) = (&device.merged, &device.mapper) {
            put_bytes(
                &mut device.config_on_bus,
                &topics.config(mapper),
                &merged.config,
                out,
            );
            let want = device.desired.want(merged);
            put(&mut device.want_on_bus, &topics.want(mapper), &want, out);
        }
        if !stale_places.is_empty() {
            for name in stale_places {
                out.push(Out::clear(&topics.config(&name)));
                out.push(Out::clear(&topics.want(&name)));
                device.desired.placed.remove(&name);
            }
            put(
                &mut device.desired_on_bus,
                &topics.desired(),
                &device.desired,
                out,
            );
        }
        let twin = device.twin();
        put(&mut device.twin_on_bus, &topics.twin(), &twin, out);
        self.delta(id, now, out);
    }

    fn restate(&mut self, id: &DeviceId, now: Now) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        let Some(name) = device.mapper.clone() else {
            return;
        };
        let down = self.mappers.get(&name).and_then(Mapper::down);
        let (state, why) = match (down, self.states.get(&(name.clone(), id.clone()))) {
            (Some(why), _) => {
                let why = if why.is_empty() {
                    String::new()
                } else {
                    format!(": {why}")
                };
                (
                    DeviceUp::Unknown,
                    Some(format!("mapper {:?} is down{why}", name.as_str())),
                )
            }
            (None, Some(said)) => (said.state, said.why.clone()),
            (None, None) => (
                DeviceUp::Unknown,
                Some(format!("mapper {:?} has not said yet", name.as_str())),
            ),
        };
        if let Some(device) = self.devices.get_mut(id) {
            set_state(device, state, why, now);
        }
    }

    fn recondition(&mut self, id: &DeviceId, now: Now) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        let around = Around {
            mappers: &self.mappers,
            model: self.model_of(id, device),
            models_complete: self.complete.contains("devicemodel"),
            now,
        };
        let found = condition::find(device, &around);
        let (conditions, news) = condition::settle(&device.conditions, found, now);
        let uid = device.uid.clone();
        if let Some(device) = self.devices.get_mut(id) {
            device.conditions = conditions;
        }
        for problem in news {
            self.tell(id, &uid, "Warning", &problem, "", now);
        }
    }

    fn model_of(&self, id: &DeviceId, device: &Device) -> Result<(), Problem> {
        let Some(name) = device.model().filter(|n| !n.is_empty()) else {
            return Err(Problem {
                reason: "NoModelRef",
                message: format!(
                    "spec.deviceModelRef.name is missing; it should name a DeviceModel in namespace {:?}",
                    id.ns.as_str()
                ),
            });
        };
        match sibling(id, name).and_then(|key| self.models.get(&key)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(problem)) => Err(problem.clone()),
            None => {
                let there: Vec<_> = self
                    .models
                    .keys()
                    .filter(|m| m.ns == id.ns)
                    .map(|m| m.name.as_str())
                    .take(20)
                    .collect();
                let there = if there.is_empty() {
                    "none".to_owned()
                } else {
                    there.join(", ")
                };
                Err(Problem {
                    reason: "NoModel",
                    message: format!(
                        "spec.deviceModelRef.name {name:?}: there is no such DeviceModel in namespace {:?} (there are: {there})",
                        id.ns.as_str()
                    ),
                })
            }
        }
    }

    fn remove(&mut self, id: &DeviceId, out: &mut Vec<Out>) {
        let Some(device) = self.devices.remove(id) else {
            return;
        };
        self.rechecks.remove(id);
        let topics = Topics::of(id);
        let mut places = device.desired.placed;
        places.extend(device.mapper);
        for name in &places {
            out.push(Out::clear(&topics.config(name)));
            out.push(Out::clear(&topics.want(name)));
        }
        if device.twin_on_bus.is_some() {
            out.push(Out::clear(&topics.twin()));
        }
        // Last: it remembers the places above.
        if device.desired_on_bus.is_some() {
            out.push(Out::clear(&topics.desired()));
        }
        self.went.insert(id.clone());
    }

    fn delta(&mut self, id: &DeviceId, now: Now, out: &mut Vec<Out>) {
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        let news = std::mem::take(&mut device.delta_news);
        let (head, for_all) = match device.delta_due.take() {
            Some(head) => (head, true),
            None => (hw::Head::default(), news),
        };
        if !for_all {
            return;
        }
        let head = hw::Head {
            timestamp: now.0,
            ..head
        };
        let device = &*device;
        let Some(delta) = hw::Delta::new(head, device.hw_twins(), |p| !device.reached(p)) else {
            return;
        };
        for address in hw::Address::all(id) {
            out.push(Out::json(address.topic("twin/update/delta"), &delta));
        }
    }
}

/// Remembers the present mapper among the places before anything is put there; gives the others.
fn place(device: &mut Device) -> Vec<Name> {
    if device.merged.is_none() {
        return vec![];
    }
    if let Some(name) = &device.mapper {
        device.desired.placed.insert(name.clone());
    }
    let places = device.desired.placed.iter();
    places
        .filter(|name| device.mapper.as_ref() != Some(*name))
        .cloned()
        .collect()
}

/// Puts a document unless the same bytes lie there.
fn put<T: Serialize>(on_bus: &mut OnBus, topic: &Topic, value: &T, out: &mut Vec<Out>) {
    put_bytes(on_bus, topic, &payload::write(value), out);
}

fn put_bytes(on_bus: &mut OnBus, topic: &Topic, bytes: &[u8], out: &mut Vec<Out>) {
    let hash = condition::hash(bytes);
    if *on_bus != Some(hash) {
        *on_bus = Some(hash);
        out.push(Out {
            topic: topic.to_string(),
            payload: bytes.to_vec(),
        });
    }
}

pub(crate) fn set_state(device: &mut Device, state: DeviceUp, why: Option<String>, now: Now) {
    if device.state != state && (device.state == DeviceUp::Online || state == DeviceUp::Online) {
        device.last_online = Some(now.text());
    }
    device.state = state;
    device.why = why;
}

fn sibling(id: &DeviceId, name: &str) -> Option<DeviceId> {
    Some(DeviceId {
        ns: id.ns.clone(),
        name: Name::new(name).ok()?,
    })
}

/// The topics of one device.
pub(crate) struct Topics<'a>(&'a DeviceId);

impl<'a> Topics<'a> {
    pub fn of(id: &'a DeviceId) -> Self {
        Self(id)
    }
    fn parts(&self) -> (Name, Name) {
        (self.0.ns.clone(), self.0.name.clone())
    }
    pub fn desired(&self) -> Topic {
        let (ns, name) = self.parts();
        Topic::TwinDesired { ns, name }
    }
    pub fn twin(&self) -> Topic {
        let (ns, name) = self.parts();
        Topic::Twin { ns, name }
    }
    pub fn config(&self, m: &Name) -> Topic {
        let (ns, name) = self.parts();
        Topic::DevConfig {
            m: m.clone(),
            ns,
            name,
        }
    }
    pub fn want(&self, m: &Name) -> Topic {
        let (ns, name) = self.parts();
        Topic::DevWant {
            m: m.clone(),
            ns,
            name,
        }
    }
    pub fn set_done(&self) -> Topic {
        let (ns, name) = self.parts();
        Topic::TwinSetDone { ns, name }
    }
    pub fn call(&self, m: &Name) -> Topic {
        let (ns, name) = self.parts();
        Topic::DevCall {
            m: m.clone(),
            ns,
            name,
        }
    }
    pub fn call_done(&self) -> Topic {
        let (ns, name) = self.parts();
        Topic::TwinCallDone { ns, name }
    }
}
