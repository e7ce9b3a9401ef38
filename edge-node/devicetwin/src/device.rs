//! One device: what is known of it, and its twin made of that.

use crate::desired::{self, DesiredDoc};
use crate::merged::{Merged, Problem, Prop, same};
use crate::table::Table;
use crate::time::{self, Now};
use edgebus_api as api;
use edgebus_bus::payload::{
    self, Condition, DeviceUp, Object, Outcome, PayloadError, Quality, Reading, Report, Source,
    Twin, TwinProp,
};
use edgebus_bus::{DeviceId, Name};
use edgebus_hw::{self as hw, value};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is known of a property's value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reported {
    /// The last value that was read.
    pub value: Option<Value>,
    /// When.
    pub at: Option<String>,
    /// How far to trust it.
    pub quality: Option<Quality>,
    /// Why it is not good, or what came of the last write.
    pub cause: Option<String>,
}

/// How the last write of a property failed: kept in `cause`, so that a restart knows it too.
const REFUSED: &str = "write refused";
const NOT_EFFECTIVE: &str = "write not effective";
const UNKNOWN: &str = "write outcome unknown";

impl Reported {
    /// If `cause` tells of a failed write: the reason in a word.
    pub fn write_failure(&self) -> Option<&'static str> {
        let cause = self.cause.as_deref()?;
        [
            (REFUSED, "WriteRefused"),
            (NOT_EFFECTIVE, "WriteNotEffective"),
            (UNKNOWN, "WriteOutcomeUnknown"),
        ]
        .into_iter()
        .find(|(prefix, _)| cause.starts_with(prefix))
        .map(|(_, reason)| reason)
    }
}

/// Bytes of a retained topic as last seen or put there, by their hash; none = nothing is there.
pub type OnBus = Option<u64>;

/// A Device object, kept as JSON until it is laid over its model: a thousand of them are much
/// smaller so.
#[derive(Debug)]
pub struct Stored {
    json: Box<[u8]>,
    model: String,
}

impl Stored {
    /// Checks that it can be read.
    pub fn new(object: Object) -> Result<Self, PayloadError> {
        let json = payload::write(&object).into();
        let read: api::Device = payload::read_object(&object)?;
        let model = read.spec.device_model_ref.unwrap_or_default().name;
        Ok(Self { json, model })
    }
    /// The object.
    pub fn read(&self) -> Result<api::Device, PayloadError> {
        payload::read(&self.json)
    }
}

/// One device.
#[derive(Debug, Default)]
pub struct Device {
    /// uid that all of this belongs to.
    pub uid: String,
    /// The object; none = known by our own topics only.
    pub object: Option<Stored>,
    /// The last object that could not be read.
    pub unreadable: Option<Problem>,
    /// Deleted, and known to be: its topics go.
    pub gone: bool,
    /// The object or its model has changed since `merged` was made.
    pub stale: bool,
    /// Object and model.
    pub merged: Option<Merged>,
    /// Desired values that cannot be taken.
    pub refused: Vec<Problem>,
    /// Who serves it.
    pub mapper: Option<Name>,
    /// What it should be.
    pub desired: DesiredDoc,
    /// What it is.
    pub reported: Table<Reported>,
    /// Whether it answers.
    pub state: DeviceUp,
    /// Why.
    pub why: Option<String>,
    /// When it was last online.
    pub last_online: Option<String>,
    /// What is wrong or noteworthy.
    pub conditions: Vec<Condition>,
    /// Since when nobody has served it, if somebody should.
    pub waiting_since: Option<i64>,
    /// `config` and `want` as put at the present mapper.
    pub config_on_bus: OnBus,
    /// See there.
    pub want_on_bus: OnBus,
    /// `twin/…/desired` on the bus.
    pub desired_on_bus: OnBus,
    /// `twin/…` on the bus.
    pub twin_on_bus: OnBus,
    /// A desired value has changed: a delta is due.
    pub delta_news: bool,
    /// The `$hw` request that a delta is due to; its id goes into it.
    pub delta_due: Option<hw::Head>,
}

impl Device {
    /// Forgets all that was said of another uid.
    pub fn start_anew(&mut self, uid: &str) {
        *self = Self {
            uid: uid.to_owned(),
            mapper: self.mapper.take(),
            desired: DesiredDoc {
                placed: std::mem::take(&mut self.desired.placed),
                ..DesiredDoc::default()
            },
            config_on_bus: self.config_on_bus,
            want_on_bus: self.want_on_bus,
            desired_on_bus: self.desired_on_bus,
            twin_on_bus: self.twin_on_bus,
            stale: true,
            ..Self::default()
        };
    }

    /// The property, or why there is none.
    pub fn prop(&self, id: &DeviceId, name: &str) -> Result<&Prop, Problem> {
        let merged = self.usable(id)?;
        merged.props.get(name).ok_or_else(|| Problem {
            reason: "PropertyNotInModel",
            message: format!(
                "property {name:?} is not in model {:?}; its properties are {}",
                merged.model,
                merged.props.keys().take(20).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// Name of the model that the object asks for.
    pub fn model(&self) -> Option<&str> {
        Some(self.object.as_ref()?.model.as_str())
    }

    /// Object and model, or why they cannot be used.
    pub fn usable(&self, id: &DeviceId) -> Result<&Merged, Problem> {
        self.merged.as_ref().ok_or_else(|| {
            let why = self
                .conditions
                .iter()
                .find(|c| c.kind == "Configured")
                .map_or("its object or its model is not here yet", |c| &c.message);
            Problem {
                reason: "NotConfigured",
                message: format!("device {id} cannot be used: {why}"),
            }
        })
    }

    /// A desired value that changes takes the outcome of the write before with it.
    pub fn note_changes(&mut self) {
        for name in std::mem::take(&mut self.desired.changed) {
            self.delta_news = true;
            if let Some(reported) = self.reported.get_mut(&name)
                && reported.write_failure().is_some()
            {
                reported.cause = None;
            }
        }
    }

    /// Takes a mapper's report. Returns writes that failed: reason and sentence.
    pub fn report(&mut self, report: &Report, now: Now) -> Vec<Problem> {
        self.note_changes();
        let Some(merged) = &self.merged else {
            return vec![];
        };
        let mut failures = Vec::new();
        for (name, reading) in &report.props {
            let Some(prop) = merged.props.get(name) else {
                continue;
            };
            let wanted = self.desired.doc.props.get(name);
            let had = self.reported.or_default(name);
            take(prop, reading, had, now);
            if let Some(outcome) = reading.outcome
                && let Some(wanted) = wanted
                && reading.gen_seen.as_ref() == Some(&wanted.r#gen)
                && let Some(prefix) = failed(outcome)
            {
                let why = reading
                    .why
                    .as_deref()
                    .unwrap_or("the mapper does not say why");
                let cause = format!("{prefix}: {why}");
                if had.cause.as_deref() != Some(cause.as_str()) {
                    let reason = match outcome {
                        Outcome::Refused => "WriteRefused",
                        Outcome::NotEffective => "WriteNotEffective",
                        _ => "WriteOutcomeUnknown",
                    };
                    failures.push(Problem {
                        reason,
                        message: format!(
                            "property {name:?}: desired {} was not reached ({prefix}): {why}; it is {}",
                            wanted.value,
                            had.value.as_ref().map_or("unknown".into(), Value::to_string),
                        ),
                    });
                }
                had.cause = Some(cause);
            }
        }
        failures
    }

    /// Takes a value that a third party reports.
    pub fn say(&mut self, name: &str, value: Option<(Value, i64)>) {
        let Some((value, at_ms)) = value else {
            self.reported.remove(name);
            return;
        };
        let out_of_range = self
            .merged
            .as_ref()
            .and_then(|m| m.props.get(name))
            .and_then(|p| value::in_range(&p.config, &value).err());
        let reported = Reported {
            value: Some(value),
            at: Some(time::text(at_ms)),
            quality: Some(match out_of_range {
                None => Quality::Good,
                Some(_) => Quality::Uncertain,
            }),
            cause: out_of_range.map(|e| e.to_string()),
        };
        self.reported.insert(name, reported);
    }

    /// Is this property as the API and the clients here want it? Not so where the API's value was
    /// refused, whatever the device has.
    pub fn is_synced(&self, name: &str) -> bool {
        self.reached(name) && !self.refuses(name)
    }

    /// Is the API's value of this property one that cannot be taken?
    fn refuses(&self, name: &str) -> bool {
        let prop = self.merged.as_ref().and_then(|m| m.props.get(name));
        prop.is_some_and(|p| {
            let spec = p.spec.clone().map(Value::String);
            spec.is_some_and(|text| desired::check(p, &text).is_err())
        })
    }

    /// Does the device have the value that was decided for this property?
    pub fn reached(&self, name: &str) -> bool {
        let Some(desired) = self.desired.doc.props.get(name) else {
            return true;
        };
        let config = self.merged.as_ref().and_then(|m| m.props.get(name));
        let value = self.reported.get(name).and_then(|r| r.value.as_ref());
        match (config, value) {
            (Some(p), Some(value)) => same(p, &desired.value, value),
            _ => false,
        }
    }

    /// The twin as everybody reads it.
    pub fn twin(&self) -> Twin {
        let mut props: BTreeMap<String, TwinProp> = BTreeMap::new();
        let known = self.merged.iter().flat_map(|m| m.props.keys());
        let names = known
            .chain(self.desired.doc.props.keys().map(String::as_str))
            .chain(self.reported.keys());
        for name in names {
            if props.contains_key(name) {
                continue;
            }
            let desired = self.desired.doc.props.get(name);
            let reported = self.reported.get(name).cloned().unwrap_or_default();
            props.insert(
                name.to_owned(),
                TwinProp {
                    desired: desired.map(|d| d.value.clone()),
                    reported: reported.value,
                    at: reported.at,
                    quality: reported.quality,
                    cause: reported.cause,
                    synced: self.is_synced(name),
                    local: desired.is_some_and(|d| d.source == Source::Local),
                },
            );
        }
        Twin {
            uid: self.uid.clone(),
            r#gen: self.desired.doc.r#gen.clone(),
            model: self.model().unwrap_or_default().to_owned(),
            mapper: self.mapper.as_ref().map(Name::to_string),
            state: self.state,
            why: self.why.clone(),
            last_online: self.last_online.clone(),
            props,
            conditions: self.conditions.clone(),
        }
    }

    /// Takes back what our own topic said before a restart.
    pub fn adopt(&mut self, twin: Twin) {
        self.state = twin.state;
        self.why = twin.why;
        self.last_online = twin.last_online;
        self.conditions = twin.conditions;
        for (name, p) in twin.props {
            if p.reported.is_some() || p.quality.is_some() || p.cause.is_some() {
                let reported = Reported {
                    value: p.reported,
                    at: p.at,
                    quality: p.quality,
                    cause: p.cause,
                };
                self.reported.insert(&name, reported);
            }
        }
    }

    /// A property as `$hw` clients know it.
    pub fn hw_twin(&self, name: &str) -> Option<hw::Twin> {
        let prop = self.merged.as_ref()?.props.get(name)?;
        let expected = self
            .desired
            .doc
            .props
            .get(name)
            .map(|d| (&d.value, self.desired.set_at_ms.get(name).copied()));
        let reported = self.reported.get(name);
        let actual = reported.and_then(|r| {
            let at = r.at.as_deref().and_then(time::millis);
            Some((r.value.as_ref()?, at))
        });
        Some(hw::Twin::new(prop.config.kind, expected, actual))
    }

    /// All properties as `$hw` clients know them.
    pub fn hw_twins(&self) -> hw::Twins {
        let names = self.merged.iter().flat_map(|m| m.props.keys());
        names
            .filter_map(|name| Some((name.to_owned(), self.hw_twin(name)?)))
            .collect()
    }
}

fn failed(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Applied | Outcome::Unchanged => None,
        Outcome::Refused => Some(REFUSED),
        Outcome::NotEffective => Some(NOT_EFFECTIVE),
        Outcome::Unknown => Some(UNKNOWN),
    }
}

/// Lays a reading over what was known: a value that could not be read leaves the last one, marked.
fn take(prop: &Prop, reading: &Reading, had: &mut Reported, now: Now) {
    let plausible = time::millis(&reading.at).is_some_and(time::is_plausible);
    let at = if plausible {
        reading.at.clone()
    } else {
        now.text()
    };
    let write_failure = had
        .write_failure()
        .is_some()
        .then(|| had.cause.clone())
        .flatten();
    let wrote = matches!(reading.outcome, Some(Outcome::Applied | Outcome::Unchanged));
    let (quality, cause) = match value::retyped(prop.config.kind, &reading.value) {
        _ if reading.value.is_null() => {
            let quality = if reading.quality == Quality::Good {
                Quality::Bad
            } else {
                reading.quality
            };
            (
                quality,
                reading.cause.clone().or_else(|| reading.why.clone()),
            )
        }
        Ok(value) => {
            had.value = Some(value);
            had.at = Some(at);
            (reading.quality, reading.cause.clone())
        }
        Err(e) => (Quality::Bad, Some(format!("typeMismatch: {e}"))),
    };
    had.quality = Some(quality);
    // A failed write is remembered until the next write or until something is wrong with reading.
    had.cause = cause.or(if wrote { None } else { write_failure });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prop() -> Prop {
        Prop {
            config: serde_json::from_value(json!({"name": "t", "type": "INT"})).unwrap(),
            step: 0.0,
            served: true,
            spec: None,
        }
    }
    fn reading(value: Value) -> Reading {
        serde_json::from_value(json!({"value": value, "at": "2026-01-01T00:00:00.000Z"})).unwrap()
    }

    #[test]
    fn a_value_that_could_not_be_read_leaves_the_last_one_marked() {
        let mut had = Reported::default();
        take(&prop(), &reading(json!(21)), &mut had, Now(0));
        assert_eq!(
            (had.value.clone(), had.quality),
            (Some(json!(21)), Some(Quality::Good))
        );
        let mut bad = reading(Value::Null);
        bad.cause = Some("commFailure".into());
        take(&prop(), &bad, &mut had, Now(0));
        assert_eq!(had.value, Some(json!(21)));
        assert_eq!(
            (had.quality, had.cause.as_deref()),
            (Some(Quality::Bad), Some("commFailure"))
        );
        take(&prop(), &reading(json!("22")), &mut had, Now(0));
        assert_eq!(
            (had.value.clone(), had.cause.clone()),
            (Some(json!(22)), None)
        );
        take(&prop(), &reading(json!("warm")), &mut had, Now(0));
        assert_eq!(had.value, Some(json!(22)));
        assert!(had.cause.unwrap().contains("\"warm\""));
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let mut had = Reported::default();
        let mut odd = reading(json!(1));
        odd.at = "1970-01-01T00:00:05Z".into();
        take(&prop(), &odd, &mut had, Now(1_700_000_000_000));
        assert_eq!(had.at.as_deref(), Some("2023-11-14T22:13:20.000Z"));
    }
}
