//! Requests from this node and what is answered: wishes and calls on the twin topics, and
//! KubeEdge's `$hw` topics over the same twins.

use crate::condition::BUS_PROTOCOL;
use crate::core::{Core, Out, Topics, set_state};
use crate::desired;
use crate::device::Device;
use crate::merged::Problem;
use crate::time::{self, Now};
use edgebus_bus::payload::{Call, CallDone, DeviceUp, Gen, Props, TwinSet, TwinSetDone};
use edgebus_bus::{DeviceId, Name, Topic};
use edgebus_hw::{self as hw, Asked, Channel, value};
use serde_json::Value;
use std::collections::BTreeMap;

/// A value checked for its property, and when it was so.
type Checked = Option<(Value, i64)>;

impl Core {
    fn device(&mut self, id: &DeviceId, now: Now) -> Result<&mut Device, Problem> {
        self.prepare(id, now);
        self.devices
            .get_mut(id)
            .filter(|d| !d.gone && (d.object.is_some() || d.unreadable.is_some()))
            .ok_or_else(|| Problem {
                reason: "NoDevice",
                message: format!("there is no device {id} on this node"),
            })
    }

    /// `twin/…/set`: all of it or nothing.
    pub(crate) fn set(&mut self, id: &DeviceId, set: TwinSet, now: Now) {
        let mut done = TwinSetDone {
            id: set.id.clone(),
            ok: true,
            refused: Props::new(),
            why: None,
            r#gen: Gen::default(),
        };
        match self.try_set(id, &set, now) {
            Ok(refused) => {
                done.ok = refused.is_empty();
                done.refused = refused;
            }
            Err(problem) => {
                done.ok = false;
                done.why = Some(problem.message);
            }
        }
        if let Some(device) = self.devices.get(id) {
            done.r#gen = device.desired.doc.r#gen.clone();
        }
        self.touch(id);
        self.answers
            .push(Out::json(Topics::of(id).set_done(), &done));
    }

    fn try_set(
        &mut self,
        id: &DeviceId,
        set: &TwinSet,
        now: Now,
    ) -> Result<Props<String>, Problem> {
        let mut gens = self.gens.clone();
        let device = self.device(id, now)?;
        if device.desired.knows(&set.id) {
            return Ok(Props::new());
        }
        if let Some(expected) = &set.if_gen
            && *expected != device.desired.doc.r#gen
        {
            let is = &device.desired.doc.r#gen;
            return Err(Problem {
                reason: "Changed",
                message: format!(
                    "if_gen is {}/{} and the twin is at {}/{}",
                    expected.store, expected.n, is.store, is.n
                ),
            });
        }
        if set.props.is_empty() || set.props.len() > hw::PROPERTIES {
            return Err(Problem {
                reason: "BadSet",
                message: format!(
                    "\"props\" names {} properties; 1 to {} are allowed",
                    set.props.len(),
                    hw::PROPERTIES
                ),
            });
        }
        let mut checked = BTreeMap::new();
        let mut refused = Props::new();
        for (name, wish) in &set.props {
            let prop = match device.prop(id, name) {
                Ok(prop) => prop.clone(),
                Err(problem) => {
                    refused.insert(name.clone(), problem.message);
                    continue;
                }
            };
            let value = match wish {
                Value::Null => Ok(None),
                wish => desired::check(&prop, wish).map(Some),
            };
            match value {
                Ok(value) => {
                    checked.insert(name.clone(), (prop, value));
                }
                Err(problem) => {
                    refused.insert(name.clone(), problem.message);
                }
            }
        }
        if refused.is_empty() {
            for (prop, value) in checked.into_values() {
                device.desired.set_local(&prop, value, &mut gens, now);
            }
            device.desired.remember(&set.id);
            self.gens = gens;
        }
        Ok(refused)
    }

    /// `twin/…/call`: a method of the Device writes its properties; anything else is the mapper's.
    pub(crate) fn call(&mut self, id: &DeviceId, call: Call, now: Now) {
        let outcome = self.try_call(id, &call, now);
        let done = match outcome {
            Ok(None) => return,
            Ok(Some(done)) => done,
            Err(problem) => CallDone {
                id: call.id,
                status: "refused".into(),
                reason: Some(problem.message),
                data: Value::Null,
            },
        };
        self.answers
            .push(Out::json(Topics::of(id).call_done(), &done));
    }

    fn try_call(
        &mut self,
        id: &DeviceId,
        call: &Call,
        now: Now,
    ) -> Result<Option<CallDone>, Problem> {
        if let Some(deadline) = &call.deadline {
            let refuse = |message| Problem {
                reason: "Deadline",
                message,
            };
            let at = time::millis(deadline).ok_or_else(|| {
                refuse(format!(
                    "deadline {deadline:?} is not a time; it should be as 2026-01-02T03:04:05Z"
                ))
            })?;
            if at <= now.0 {
                return Err(refuse(format!(
                    "its deadline {deadline} is over; it was not begun"
                )));
            }
        }
        let device = self.device(id, now)?;
        let merged = device.usable(id)?;
        if let Some(names) = merged.methods.get(&call.method) {
            if let Some(other) = call.args.keys().find(|k| !names.contains(k)) {
                return Err(Problem {
                    reason: "BadArgument",
                    message: format!(
                        "method {:?} does not write {other:?}; it writes {}",
                        call.method,
                        names.join(", ")
                    ),
                });
            }
            let props = call.args.iter().map(|(k, v)| (k.clone(), v.clone()));
            let set = TwinSet {
                id: call.id.clone(),
                props: props.collect(),
                if_gen: None,
            };
            let refused = self.try_set(id, &set, now)?;
            self.touch(id);
            let why: Vec<_> = refused.into_values().collect();
            return Ok(Some(CallDone {
                id: call.id.clone(),
                status: if why.is_empty() { "ok" } else { "refused" }.into(),
                reason: (!why.is_empty()).then(|| why.join("; ")),
                data: Value::Null,
            }));
        }
        let methods: Vec<_> = merged.methods.keys().cloned().collect();
        let Some(device) = self.devices.get(id) else {
            return Ok(None);
        };
        let nobody = |why: String| Problem {
            reason: "NoMapper",
            message: format!("method {:?} cannot be called: {why}", call.method),
        };
        let Some((name, mapper)) = self.mapper_of(device) else {
            let known = if methods.is_empty() {
                "none".into()
            } else {
                methods.join(", ")
            };
            return Err(nobody(format!(
                "no mapper serves device {id}, and its spec.methods are {known}"
            )));
        };
        if let Some(why) = mapper.down() {
            return Err(nobody(format!("mapper {:?} is down {why}", name.as_str())));
        }
        if mapper
            .hello
            .as_ref()
            .is_none_or(|h| !h.features.iter().any(|f| f == "call"))
        {
            return Err(nobody(format!("mapper {:?} takes no calls", name.as_str())));
        }
        let forward = Out::json(Topics::of(id).call(name), call);
        self.answers.push(forward);
        Ok(None)
    }

    /// `dev/…/call/done`: passed on to whoever asked.
    pub(crate) fn call_done(&mut self, mapper: &Name, id: DeviceId, done: &CallDone) {
        let serves = self
            .devices
            .get(&id)
            .is_some_and(|d| d.mapper.as_ref() == Some(mapper));
        if serves {
            self.answers
                .push(Out::json(Topics::of(&id).call_done(), done));
        }
    }

    /// A payload that could not be read: its author is told where he looks.
    pub(crate) fn broken(&mut self, topic: &Topic, why: String, now: Now) {
        match topic {
            Topic::TwinSet { ns, name } => {
                let id = DeviceId {
                    ns: ns.clone(),
                    name: name.clone(),
                };
                let done = TwinSetDone {
                    id: String::new(),
                    ok: false,
                    refused: Props::new(),
                    why: Some(why),
                    r#gen: Gen::default(),
                };
                self.answers
                    .push(Out::json(Topics::of(&id).set_done(), &done));
            }
            Topic::TwinCall { ns, name } => {
                let id = DeviceId {
                    ns: ns.clone(),
                    name: name.clone(),
                };
                let done = CallDone {
                    id: String::new(),
                    status: "refused".into(),
                    reason: Some(why),
                    data: Value::Null,
                };
                self.answers
                    .push(Out::json(Topics::of(&id).call_done(), &done));
            }
            Topic::DevReport { m, ns, name }
            | Topic::DevState { m, ns, name }
            | Topic::DevCallDone { m, ns, name } => {
                let id = DeviceId {
                    ns: ns.clone(),
                    name: name.clone(),
                };
                let Some(device) = self.devices.get(&id) else {
                    return;
                };
                if device.mapper.as_ref() != Some(m) {
                    return;
                }
                let uid = device.uid.clone();
                let problem = Problem {
                    reason: "BadMapperMessage",
                    message: format!("mapper {:?} said on {topic}: {why}", m.as_str()),
                };
                self.tell(&id, &uid, "Warning", &problem, "", now);
            }
            // Objects come from the link and our own documents from us: the log is where their
            // authors look.
            other => tracing::warn!(topic = %other, %why, "ignored"),
        }
    }

    /// Any `$hw` request.
    pub(crate) fn hw(&mut self, topic: &str, payload: &[u8], now: Now) {
        let outcome = match Asked::parse(topic) {
            Ok(Asked::Device(address, Channel::TwinUpdate)) => {
                self.hw_update(&address, payload, now)
            }
            Ok(Asked::Device(address, Channel::TwinGet)) => self.hw_get(&address, payload, now),
            Ok(Asked::Device(address, Channel::StateUpdate)) => {
                self.hw_state(&address, payload, now)
            }
            Ok(Asked::Membership(node)) => self.hw_members(&node, payload, now),
            Err(e) => Err((404, e.to_string())),
        };
        let result = format!("{topic}/result");
        match outcome {
            Ok(bytes) => self.answers.push(Out {
                topic: result,
                payload: bytes,
            }),
            Err((code, reason)) => {
                let refusal = hw::Refusal {
                    head: answer_to(hw::head_of(payload), now),
                    code,
                    reason,
                };
                self.answers.push(Out::json(result, &refusal));
            }
        }
    }

    fn hw_device(&mut self, address: &hw::Address, now: Now) -> Result<&mut Device, (u16, String)> {
        let device = self
            .device(&address.device, now)
            .map_err(|p| (404, p.message))?;
        match device.usable(&address.device) {
            Ok(_) => {}
            Err(problem) => return Err((500, problem.message)),
        }
        Ok(device)
    }

    fn hw_update(
        &mut self,
        address: &hw::Address,
        payload: &[u8],
        now: Now,
    ) -> Result<Vec<u8>, (u16, String)> {
        let update = hw::TwinUpdate::read(payload).map_err(|e| (400, e.to_string()))?;
        let id = &address.device;
        let mut gens = self.gens.clone();
        let device = self.hw_device(address, now)?;
        let mut checked: BTreeMap<String, Option<(Checked, Checked)>> = BTreeMap::new();
        for (name, said) in &update.twin {
            let Some(said) = said else {
                checked.insert(name.clone(), None);
                continue;
            };
            let bad = |p: Problem| (400, p.message);
            let prop = device.prop(id, name).map_err(bad)?;
            let at = |v: &hw::TextValue| {
                v.timestamp
                    .filter(|t| time::is_plausible(*t))
                    .unwrap_or(now.0)
            };
            let actual = match &said.actual {
                None => None,
                Some(v) => {
                    let value = value::typed(prop.config.kind, &v.value)
                        .map_err(|e| (400, format!("property {name:?}: actual value {e}")))?;
                    Some((value, at(v)))
                }
            };
            let expected = match &said.expected {
                None => None,
                Some(v) => {
                    let wish = Value::String(v.value.clone());
                    Some((desired::check(prop, &wish).map_err(bad)?, at(v)))
                }
            };
            checked.insert(name.clone(), Some((actual, expected)));
        }
        let mut accepted = hw::Twins::new();
        let mut document = BTreeMap::new();
        for (name, said) in checked {
            let last = device
                .hw_twin(&name)
                .filter(|t| t.actual.is_some() || t.expected.is_some());
            let prop = device.prop(id, &name).ok().cloned();
            match said {
                None => {
                    device.say(&name, None);
                    if let Some(prop) = &prop {
                        device.desired.set_local(prop, None, &mut gens, now);
                    }
                }
                Some((actual, expected)) => {
                    if let Some(prop) = &prop {
                        let pair = |c: &Checked| c.clone().map(|(v, at)| (v, Some(at)));
                        let (a, e) = (pair(&actual), pair(&expected));
                        let twin = hw::Twin::new(
                            prop.config.kind,
                            e.as_ref().map(|(v, at)| (v, *at)),
                            a.as_ref().map(|(v, at)| (v, *at)),
                        );
                        accepted.insert(name.clone(), twin);
                        if let Some((value, _)) = expected {
                            device.desired.set_local(prop, Some(value), &mut gens, now);
                        }
                    }
                    if actual.is_some() {
                        device.say(&name, actual);
                    }
                }
            }
            let current = device
                .hw_twin(&name)
                .filter(|t| t.actual.is_some() || t.expected.is_some());
            if last.is_some() || current.is_some() {
                document.insert(name, hw::Change { last, current });
            }
        }
        let head = answer_to(update.head, now);
        device.delta_due = Some(head.clone());
        self.gens = gens;
        self.touch(id);
        let document = hw::Document {
            head: head.clone(),
            twin: document,
        };
        for form in hw::Address::all(id) {
            self.answers
                .push(Out::json(form.topic("twin/update/document"), &document));
        }
        let result = hw::TwinResult {
            head,
            twin: accepted,
        };
        Ok(edgebus_bus::payload::write(&result))
    }

    fn hw_get(
        &mut self,
        address: &hw::Address,
        payload: &[u8],
        now: Now,
    ) -> Result<Vec<u8>, (u16, String)> {
        let head = hw::read_get(payload).map_err(|e| (400, e.to_string()))?;
        let device = self.hw_device(address, now)?;
        let result = hw::TwinResult {
            head: answer_to(head, now),
            twin: device.hw_twins(),
        };
        Ok(edgebus_bus::payload::write(&result))
    }

    fn hw_state(
        &mut self,
        address: &hw::Address,
        payload: &[u8],
        now: Now,
    ) -> Result<Vec<u8>, (u16, String)> {
        let update = hw::read_state(payload).map_err(|e| (400, e.to_string()))?;
        let state = match update.state.to_ascii_lowercase().as_str() {
            "online" | "ok" => DeviceUp::Online,
            "offline" | "disconnected" => DeviceUp::Offline,
            "unhealthy" => DeviceUp::Unhealthy,
            "unknown" => DeviceUp::Unknown,
            _ => {
                let given: String = update.state.chars().take(80).collect();
                return Err((
                    400,
                    format!(
                        "state {given:?} is not one of online, ok, offline, disconnected, unhealthy, unknown"
                    ),
                ));
            }
        };
        let device = self
            .device(&address.device, now)
            .map_err(|p| (404, p.message))?;
        if let Some(mapper) = &device.mapper {
            let message = format!(
                "mapper {:?} says whether device {} is online; clients say so only of devices with protocol {BUS_PROTOCOL:?}",
                mapper.as_str(),
                address.device
            );
            return Err((400, message));
        }
        set_state(device, state, None, now);
        let result = hw::StateResult {
            head: answer_to(update.head, now),
            device: hw::DeviceState {
                name: address.device.name.to_string(),
                state: word(device.state),
                last_online_time: device.last_online.clone().unwrap_or_default(),
            },
        };
        self.touch(&address.device);
        Ok(edgebus_bus::payload::write(&result))
    }

    fn hw_members(
        &mut self,
        node: &edgebus_bus::NodeName,
        payload: &[u8],
        now: Now,
    ) -> Result<Vec<u8>, (u16, String)> {
        let head = hw::read_get(payload).map_err(|e| (400, e.to_string()))?;
        if let Some(own) = self.node.as_ref().filter(|own| *own != node) {
            return Err((
                404,
                format!("this is node {:?}, not {:?}", own.as_str(), node.as_str()),
            ));
        }
        let known = self.devices.iter().filter(|(_, d)| d.object.is_some());
        let devices = known
            .map(|(id, d)| hw::Member {
                id: id.to_string(),
                name: id.name.to_string(),
                description: String::new(),
                state: word(d.state),
                last_online: d.last_online.clone().unwrap_or_default(),
                attributes: BTreeMap::new(),
            })
            .collect();
        let result = hw::Membership {
            head: answer_to(head, now),
            devices,
        };
        Ok(edgebus_bus::payload::write(&result))
    }

    /// Says that a device came or went.
    pub(crate) fn members_changed(
        &mut self,
        added: Option<&DeviceId>,
        removed: Option<&DeviceId>,
        now: Now,
    ) {
        let Some(node) = self.node.as_ref().filter(|_| self.is_ready()) else {
            return;
        };
        let list = |id: Option<&DeviceId>| {
            id.map(|id| {
                vec![hw::NewMember {
                    id: id.to_string(),
                    name: id.name.to_string(),
                    ..hw::NewMember::default()
                }]
            })
        };
        let updated = hw::MembershipUpdated {
            head: answer_to(hw::Head::default(), now),
            added_devices: list(added),
            removed_devices: list(removed),
        };
        let message = Out::json(hw::membership_updated(node), &updated);
        self.answers.push(message);
    }
}

fn answer_to(head: hw::Head, now: Now) -> hw::Head {
    hw::Head {
        event_id: head.event_id,
        timestamp: now.0,
    }
}

fn word(state: DeviceUp) -> String {
    match state {
        DeviceUp::Online => "online",
        DeviceUp::Offline => "offline",
        DeviceUp::Unhealthy => "unhealthy",
        DeviceUp::Unknown => "unknown",
    }
    .to_owned()
}
