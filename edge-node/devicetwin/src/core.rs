//! The state machine: inputs change what is known, [`Core::flush`] says what follows from it.
//! Pure: no I/O, and the time is told.
//!
//! All retained topics of devicetwin are functions of what is known; `flush` puts those that
//! differ from what lies on the bus. So a burst of inputs costs each device one publish, and a
//! restart that reads objects and its own topics again arrives at the same documents.

use crate::assign::{Mapper, Mappers};
use crate::condition;
use crate::desired::{DesiredDoc, Gens};
use crate::device::{Device, Stored};
use crate::merged::Problem;
use crate::time::Now;
use edgebus_api as api;
use edgebus_bus::payload::{
    self, Call, CallDone, DeviceState, Health, Hello, Obj, Report, SyncMark, Twin, TwinSet,
};
use edgebus_bus::{DeviceId, Name, NodeName, Topic};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Something that happened on the bus.
#[derive(Debug, Clone)]
pub enum Input {
    /// A listing of objects and mappers begins: at the start and after each reconnect.
    ListingBegins,
    /// It is complete: what was not in it is not there.
    ListingEnds,
    /// A listing of our own topics begins. Before the first [`Input::ListingBegins`] what is
    /// listed is adopted; later it only tells what has to be put again.
    OwnBegins,
    /// It is complete.
    OwnEnds,
    /// Our own `twin/…/desired`, and the hash of its bytes.
    OwnDesired(DeviceId, u64, DesiredDoc),
    /// Our own `twin/…`, and the hash of its bytes.
    OwnTwin(DeviceId, u64, Twin),
    /// A Device; none = deleted.
    Device(DeviceId, Option<Obj>),
    /// A DeviceModel; none = deleted.
    Model(DeviceId, Option<Obj>),
    /// Whether the mirror of a kind is complete.
    Sync(String, Option<SyncMark>),
    /// What a mapper is.
    Hello(Name, Option<Hello>),
    /// How a component is.
    Health(Name, Option<Health>),
    /// Whether a device answers.
    State(Name, DeviceId, Option<DeviceState>),
    /// What a mapper read or wrote.
    Report(Name, DeviceId, Report),
    /// A wish from this node.
    Set(DeviceId, TwinSet),
    /// A call from this node.
    Call(DeviceId, Call),
    /// Its outcome.
    CallDone(Name, DeviceId, CallDone),
    /// A `$hw` request.
    Hw {
        /// Its topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// A payload that cannot be read.
    Broken {
        /// Its topic.
        topic: Topic,
        /// What is wrong.
        why: String,
    },
}

/// A message to publish, with the flags that its topic's row says. Empty = clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Out {
    pub(crate) fn json<T: Serialize>(topic: impl ToString, value: &T) -> Self {
        Self {
            topic: topic.to_string(),
            payload: payload::write(value),
        }
    }
    pub(crate) fn clear(topic: &Topic) -> Self {
        Self {
            topic: topic.to_string(),
            payload: Vec::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    pub(crate) node: Option<NodeName>,
    pub(crate) gens: Gens,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) models: BTreeMap<DeviceId, Result<api::DeviceModel, Problem>>,
    pub(crate) mappers: Mappers,
    pub(crate) complete: BTreeSet<String>,
    pub(crate) states: BTreeMap<(Name, DeviceId), DeviceState>,
    /// The first listing is complete: from here on something is done.
    ready: bool,
    /// What a listing has not shown yet.
    unseen: Option<Unseen>,
    pub(crate) dirty: BTreeSet<DeviceId>,
    /// When a device that waits for a mapper is looked at again.
    pub(crate) rechecks: BTreeMap<DeviceId, i64>,
    /// Devices that came and went since that was last said.
    pub(crate) came: BTreeSet<DeviceId>,
    /// See there.
    pub(crate) went: BTreeSet<DeviceId>,
    /// Answers and Events that wait for `flush`.
    pub(crate) events: Vec<Out>,
    pub(crate) answers: Vec<Out>,
}

#[derive(Debug, Default)]
struct Unseen {
    devices: BTreeSet<DeviceId>,
    models: BTreeSet<DeviceId>,
    hellos: BTreeSet<Name>,
    healths: BTreeSet<Name>,
    states: BTreeSet<(Name, DeviceId)>,
    sync: BTreeSet<String>,
}

impl Core {
    /// A core that knows nothing yet. `fresh` is a random id for the count of generations, used
    /// unless the bus remembers one.
    pub fn new(node: Option<NodeName>, fresh: String) -> Self {
        Self {
            node,
            gens: Gens { store: fresh, n: 0 },
            devices: BTreeMap::new(),
            models: BTreeMap::new(),
            mappers: Mappers::new(),
            complete: BTreeSet::new(),
            states: BTreeMap::new(),
            ready: false,
            unseen: None,
            dirty: BTreeSet::new(),
            rechecks: BTreeMap::new(),
            came: BTreeSet::new(),
            went: BTreeSet::new(),
            events: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Whether the first listing is complete.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether no listing is under way: only then [`Core::flush`] says anything.
    pub fn is_settled(&self) -> bool {
        self.ready && self.unseen.is_none()
    }

    /// Devices that have an object.
    pub fn devices(&self) -> usize {
        self.devices.values().filter(|d| d.object.is_some()).count()
    }

    /// Takes one input.
    pub fn step(&mut self, input: Input, now: Now) {
        match input {
            Input::ListingBegins => self.listing_begins(),
            Input::ListingEnds => self.listing_ends(),
            Input::OwnBegins => {
                for device in self.devices.values_mut() {
                    device.desired_on_bus = None;
                    device.twin_on_bus = None;
                }
            }
            Input::OwnEnds => self.own_ends(),
            Input::OwnDesired(id, hash, doc) => self.own_desired(id, hash, doc),
            Input::OwnTwin(id, hash, twin) => self.own_twin(id, hash, twin),
            Input::Device(id, object) => self.object(id, object),
            Input::Model(id, object) => self.model(id, object),
            Input::Sync(kind, mark) => self.sync(kind, mark),
            Input::Hello(name, hello) => self.hello(name, hello),
            Input::Health(name, health) => self.health(name, health),
            Input::State(mapper, id, state) => self.state(mapper, id, state),
            Input::Report(mapper, id, report) => self.report(&mapper, &id, &report, now),
            Input::Set(id, set) => self.set(&id, set, now),
            Input::Call(id, call) => self.call(&id, call, now),
            Input::CallDone(mapper, id, done) => self.call_done(&mapper, id, &done),
            Input::Hw { topic, payload } => self.hw(&topic, &payload, now),
            Input::Broken { topic, why } => self.broken(&topic, why, now),
        }
    }

    /// When [`Core::flush`] wants to be called even if nothing happens.
    pub fn next_due(&self) -> Option<i64> {
        self.rechecks.values().min().copied()
    }

    /// A message of [`Core::flush`] was refused: what it put does not lie there.
    pub fn refused(&mut self, topic: &str) {
        let Ok(topic) = Topic::parse(topic) else {
            return;
        };
        let (Topic::Twin { ns, name }
        | Topic::TwinDesired { ns, name }
        | Topic::DevConfig { ns, name, .. }
        | Topic::DevWant { ns, name, .. }) = topic
        else {
            return;
        };
        let id = DeviceId { ns, name };
        if let Some(device) = self.devices.get_mut(&id) {
            device.twin_on_bus = None;
            device.desired_on_bus = None;
            device.config_on_bus = None;
            device.want_on_bus = None;
            self.dirty.insert(id);
        }
    }

    fn listing_begins(&mut self) {
        self.unseen = Some(Unseen {
            devices: self.with_object().collect(),
            models: self.models.keys().cloned().collect(),
            hellos: self.mappers.keys().cloned().collect(),
            healths: self.mappers.keys().cloned().collect(),
            states: self.states.keys().cloned().collect(),
            sync: self.complete.clone(),
        });
    }

    fn with_object(&self) -> impl Iterator<Item = DeviceId> + '_ {
        let known = self.devices.iter();
        known
            .filter(|(_, d)| d.object.is_some() || d.unreadable.is_some())
            .map(|(id, _)| id.clone())
    }

    fn listing_ends(&mut self) {
        let unseen = self.unseen.take().unwrap_or_default();
        for kind in unseen.sync {
            self.complete.remove(&kind);
        }
        for key in unseen.states {
            self.state(key.0, key.1, None);
        }
        for name in unseen.hellos {
            self.hello(name, None);
        }
        for name in unseen.healths {
            self.health(name, None);
        }
        // What is not there is deleted only where the mirror was complete once.
        if self.complete.contains("devicemodel") {
            for id in unseen.models {
                self.model(id, None);
            }
        }
        if self.complete.contains("device") {
            for id in unseen.devices {
                self.object(id, None);
            }
        }
        if !self.ready {
            // What was there at the start did not come.
            self.came.clear();
        }
        self.ready = true;
        self.forget_orphans();
        self.dirty.extend(self.devices.keys().cloned());
    }

    /// Devices that only our own topics know, where the mirror is complete.
    fn forget_orphans(&mut self) {
        if !self.ready || self.unseen.is_some() || !self.complete.contains("device") {
            return;
        }
        for (id, device) in &mut self.devices {
            if device.object.is_none() && device.unreadable.is_none() && !device.gone {
                device.gone = true;
                self.dirty.insert(id.clone());
            }
        }
    }

    fn own_ends(&mut self) {
        for (id, device) in &mut self.devices {
            if device.desired_on_bus.is_none() {
                // The bus has lost our documents, and with them what lay at the mapper.
                device.config_on_bus = None;
                device.want_on_bus = None;
            }
            self.dirty.insert(id.clone());
        }
    }

    fn own_desired(&mut self, id: DeviceId, hash: u64, doc: DesiredDoc) {
        if !self.ready {
            for d in doc.doc.props.values() {
                self.gens.saw(&d.r#gen);
            }
            self.gens.saw(&doc.doc.r#gen);
        }
        let device = self.devices.entry(id.clone()).or_default();
        device.desired_on_bus = Some(hash);
        if !self.ready && device.object.is_none() {
            device.uid = doc.doc.uid.clone();
            // The twin is put last: where it speaks of another mapper, a move is not finished and
            // is decided again.
            let placed = std::mem::take(&mut device.desired.placed);
            if device.twin_on_bus.is_none() {
                device.mapper = doc.placed.first().cloned();
            }
            device.desired = doc;
            device.desired.placed.extend(placed);
        }
        self.dirty.insert(id);
    }

    fn own_twin(&mut self, id: DeviceId, hash: u64, twin: Twin) {
        let device = self.devices.entry(id.clone()).or_default();
        device.twin_on_bus = Some(hash);
        if !self.ready && device.object.is_none() {
            device.uid = twin.uid.clone();
            device.mapper = twin.mapper.as_ref().and_then(|m| Name::new(m).ok());
            device.desired.placed.extend(device.mapper.clone());
            device.adopt(twin);
        }
        self.dirty.insert(id);
    }

    fn object(&mut self, id: DeviceId, object: Option<Obj>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.devices.remove(&id);
        }
        self.dirty.insert(id.clone());
        let Some(object) = object else {
            if let Some(device) = self.devices.get_mut(&id) {
                device.object = None;
                device.gone = true;
            }
            return;
        };
        let is_new = !self.devices.contains_key(&id);
        let device = self.devices.entry(id.clone()).or_default();
        let knew = !is_new && device.object.is_some() && !device.gone;
        if device.uid != object.uid {
            device.start_anew(&object.uid);
        }
        device.gone = false;
        match Stored::new(object.obj) {
            Ok(read) => {
                device.object = Some(read);
                device.unreadable = None;
                device.stale = true;
            }
            Err(e) => {
                device.unreadable = Some(Problem {
                    reason: "Unreadable",
                    message: format!(
                        "the Device cannot be read: {e}; the last readable one stays in force"
                    ),
                });
            }
        }
        if !knew {
            self.went.remove(&id);
            self.came.insert(id);
        }
    }

    fn model(&mut self, id: DeviceId, object: Option<Obj>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.models.remove(&id);
        }
        for (device_id, device) in &mut self.devices {
            if device_id.ns == id.ns && device.model() == Some(id.name.as_str()) {
                device.stale = true;
                self.dirty.insert(device_id.clone());
            }
        }
        let Some(object) = object else {
            self.models.remove(&id);
            return;
        };
        let read = payload::read_object(&object.obj).map_err(|e| Problem {
            reason: "ModelUnreadable",
            message: format!("DeviceModel {:?} cannot be read: {e}", id.name.as_str()),
        });
        self.models.insert(id, read);
    }

    fn sync(&mut self, kind: String, mark: Option<SyncMark>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.sync.remove(&kind);
        }
        if mark.is_some_and(|m| m.complete) {
            self.complete.insert(kind.clone());
        } else {
            self.complete.remove(&kind);
        }
        self.forget_orphans();
        if kind == "devicemodel" {
            let waiting = self.devices.iter().filter(|(_, d)| d.merged.is_none());
            self.dirty.extend(waiting.map(|(id, _)| id.clone()));
        }
    }

    fn hello(&mut self, name: Name, hello: Option<Hello>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.hellos.remove(&name);
        }
        let mapper = self.mappers.entry(name.clone()).or_default();
        if mapper.hello == hello {
            return;
        }
        mapper.hello = hello;
        for (id, device) in &self.devices {
            let concerned = device.mapper.as_ref().is_none_or(|m| *m == name);
            if concerned || device.waiting_since.is_some() {
                self.dirty.insert(id.clone());
            }
        }
    }

    fn health(&mut self, name: Name, health: Option<Health>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.healths.remove(&name);
        }
        let mapper = self.mappers.entry(name.clone()).or_default();
        let was_down = mapper.down().map(str::to_owned);
        mapper.health = health;
        if mapper.down().map(str::to_owned) != was_down {
            let served = self.devices.iter();
            let served = served.filter(|(_, d)| d.mapper.as_ref() == Some(&name));
            self.dirty.extend(served.map(|(id, _)| id.clone()));
        }
    }

    fn state(&mut self, mapper: Name, id: DeviceId, state: Option<DeviceState>) {
        let key = (mapper, id.clone());
        if let Some(unseen) = &mut self.unseen {
            unseen.states.remove(&key);
        }
        match state {
            Some(state) => self.states.insert(key, state),
            None => self.states.remove(&key),
        };
        self.dirty.insert(id);
    }

    fn report(&mut self, mapper: &Name, id: &DeviceId, report: &Report, now: Now) {
        self.prepare(id, now);
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        // A device that has changed hands is told of by its present mapper only.
        if device.mapper.as_ref() != Some(mapper) {
            return;
        }
        let failures = device.report(report, now);
        let uid = device.uid.clone();
        for problem in failures {
            self.tell(id, &uid, "Warning", &problem, "", now);
        }
        self.dirty.insert(id.clone());
    }

    /// Says an Event about a device.
    pub(crate) fn tell(
        &mut self,
        id: &DeviceId,
        uid: &str,
        kind: &str,
        problem: &Problem,
        of: &str,
        now: Now,
    ) {
        let Ok(c) = Name::new("devicetwin") else {
            return;
        };
        let event = condition::event(id, uid, kind, problem, of, now);
        self.events.push(Out::json(Topic::Event { c }, &event));
    }

    /// Marks a device for the next flush.
    pub(crate) fn touch(&mut self, id: &DeviceId) {
        self.dirty.insert(id.clone());
    }

    /// The mapper of a device, if it is there.
    pub(crate) fn mapper_of<'a>(&'a self, device: &'a Device) -> Option<(&'a Name, &'a Mapper)> {
        let name = device.mapper.as_ref()?;
        Some((name, self.mappers.get(name)?))
    }
}
