//! The state machine: inputs change what is known, [`Core::flush`] says what follows from it.
//! Pure: no I/O, and the time is told.
//!
//! All retained topics of devicetwin are functions of what is known; `flush` puts those that
//! differ from what lies on the bus. So a burst of inputs costs each device one publish, and a
//! restart that reads objects and its own topics again arrives at the same documents.

use crate::assign::{self, Mapper, Mappers, PATIENCE_MS};
use crate::condition::{self, Around, BUS_PROTOCOL};
use crate::desired::{DesiredDoc, Gens};
use crate::device::Device;
use crate::merged::{self, Problem};
use crate::time::Now;
use edgebus_api as api;
use edgebus_bus::payload::{
    self, Call, CallDone, DeviceState, DeviceUp, Health, Hello, Obj, Report, SyncMark, Twin,
    TwinSet,
};
use edgebus_bus::{DeviceId, Name, NodeName, Topic};
use edgebus_hw as hw;
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
    fn clear(topic: &Topic) -> Self {
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
    models: BTreeMap<DeviceId, Result<api::DeviceModel, Problem>>,
    mappers: Mappers,
    complete: BTreeSet<String>,
    states: BTreeMap<(Name, DeviceId), DeviceState>,
    /// The first listing is complete: from here on something is done.
    ready: bool,
    /// What a listing has not shown yet.
    unseen: Option<Unseen>,
    dirty: BTreeSet<DeviceId>,
    rechecks: BTreeMap<DeviceId, i64>,
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
            Input::ListingEnds => self.listing_ends(now),
            Input::OwnBegins => {
                for device in self.devices.values_mut() {
                    device.desired_on_bus = None;
                    device.twin_on_bus = None;
                }
            }
            Input::OwnEnds => self.own_ends(),
            Input::OwnDesired(id, hash, doc) => self.own_desired(id, hash, doc),
            Input::OwnTwin(id, hash, twin) => self.own_twin(id, hash, twin),
            Input::Device(id, object) => self.object(id, object, now),
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

    fn listing_ends(&mut self, now: Now) {
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
                self.object(id, None, now);
            }
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
            device.mapper = doc.placed.first().cloned();
            device.desired = doc;
        }
        self.dirty.insert(id);
    }

    fn own_twin(&mut self, id: DeviceId, hash: u64, twin: Twin) {
        let device = self.devices.entry(id.clone()).or_default();
        device.twin_on_bus = Some(hash);
        if !self.ready && device.object.is_none() {
            device.uid = twin.uid.clone();
            if let Some(name) = twin.mapper.as_ref().and_then(|m| Name::new(m).ok()) {
                device.desired.placed.insert(name.clone());
                device.mapper = Some(name);
            }
            device.adopt(twin);
        }
        self.dirty.insert(id);
    }

    fn object(&mut self, id: DeviceId, object: Option<Obj>, now: Now) {
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
        match serde_json::from_value::<api::Device>(object.obj.into()) {
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
            self.members_changed(Some(&id), None, now);
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
        let read = serde_json::from_value(object.obj.into()).map_err(|e| Problem {
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

    /// Brings a device's object, model and mapper together, so that requests find it ready.
    pub(crate) fn prepare(&mut self, id: &DeviceId, now: Now) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        if !self.ready || !device.stale || device.gone {
            return;
        }
        let Some(object) = &device.object else {
            return;
        };
        let model = device
            .model()
            .and_then(|name| self.models.get(&sibling(id, name)?));
        let merged = match model {
            Some(Ok(model)) => merged::merge(object, model),
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

    /// What follows from all that happened: to be published in this order.
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
        for id in std::mem::take(&mut self.dirty) {
            self.settle(&id, now, &mut puts);
        }
        // Events first: a crash in between repeats an Event, which has the same name, and never
        // loses one. Answers last: they promise what was put before them.
        let mut out = std::mem::take(&mut self.events);
        out.append(&mut puts);
        out.append(&mut self.answers);
        out
    }

    fn settle(&mut self, id: &DeviceId, now: Now, out: &mut Vec<Out>) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        if device.gone {
            return self.remove(id, now, out);
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
            let config = merged.config(&device.uid);
            put(
                &mut device.config_on_bus,
                &topics.config(mapper),
                &config,
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

    fn remove(&mut self, id: &DeviceId, now: Now, out: &mut Vec<Out>) {
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
        self.members_changed(None, Some(id), now);
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
        let Some(delta) = hw::Delta::new(head, device.hw_twins(), |p| !device.is_synced(p)) else {
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
fn put<T: Serialize>(on_bus: &mut Option<u64>, topic: &Topic, value: &T, out: &mut Vec<Out>) {
    let message = Out::json(topic, value);
    let hash = condition::hash(&message.payload);
    if *on_bus != Some(hash) {
        *on_bus = Some(hash);
        out.push(message);
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
