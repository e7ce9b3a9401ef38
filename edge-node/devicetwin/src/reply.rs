//! Wishes and calls from this node on the twin topics, and what is answered.

use crate::core::{Core, Out};
use crate::desired;
use crate::device::Device;
use crate::merged::Problem;
use crate::settle::Topics;
use crate::time::{self, Now};
use edgebus_bus::payload::{Call, CallDone, Gen, Props, TwinSet, TwinSetDone};
use edgebus_bus::{DeviceId, Name, Topic};
use edgebus_hw as hw;
use serde_json::Value;
use std::collections::BTreeMap;

impl Core {
    pub(crate) fn device(&mut self, id: &DeviceId, now: Now) -> Result<&mut Device, Problem> {
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
}
