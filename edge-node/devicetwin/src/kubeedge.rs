//! KubeEdge's `$hw` topics over the twins: results on the form that asked, documents and deltas on
//! every form under which clients may look for the device.

use crate::condition::BUS_PROTOCOL;
use crate::core::{Core, Out};
use crate::desired;
use crate::device::Device;
use crate::merged::Problem;
use crate::settle::set_state;
use crate::time::{self, Now};
use edgebus_bus::DeviceId;
use edgebus_bus::payload::DeviceUp;
use edgebus_hw::{self as hw, Asked, Channel, value};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A value checked for its property, and when it was so.
type Checked = Option<(Value, i64)>;

impl Core {
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

    /// Says which devices came and went.
    pub(crate) fn members_changed(&mut self, now: Now) -> Option<Out> {
        let came = std::mem::take(&mut self.came);
        let went = std::mem::take(&mut self.went);
        let node = self.node.as_ref()?;
        if came.is_empty() && went.is_empty() {
            return None;
        }
        let list = |ids: BTreeSet<DeviceId>| {
            let new = |id: DeviceId| hw::NewMember {
                id: id.to_string(),
                name: id.name.to_string(),
                ..hw::NewMember::default()
            };
            let all: Vec<_> = ids.into_iter().map(new).collect();
            (!all.is_empty()).then_some(all)
        };
        let updated = hw::MembershipUpdated {
            head: answer_to(hw::Head::default(), now),
            added_devices: list(came),
            removed_devices: list(went),
        };
        Some(Out::json(hw::membership_updated(node), &updated))
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
