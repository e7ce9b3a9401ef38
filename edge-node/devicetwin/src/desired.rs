//! Two writers of one desired value: `Device.spec` in the API, and clients on this node.
//!
//! A local value stands until the API's value *changes*, that is differs from the one that was
//! there when the local value was set (`spec_seen`); then the API wins, and it is said where that
//! replaced a local value. A generation is spent only when a value changes.

use crate::merged::{Merged, Problem, Prop};
use crate::time::Now;
use edgebus_bus::Name;
use edgebus_bus::payload::{Access, Desired, Gen, Props, Source, TwinDesired, Want, Wanted};
use edgebus_hw::value::{self, ValueError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Wishes whose ids are remembered, so that a repeat is known as one.
const SEEN: usize = 16;

/// Counts generations; one for all devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gens {
    /// Id of the store that counts.
    pub store: String,
    /// The last one given.
    pub n: u64,
}

impl Gens {
    fn next(&mut self) -> Gen {
        self.n += 1;
        Gen {
            store: self.store.clone(),
            n: self.n,
        }
    }
    /// Continues behind a generation that was found on the bus.
    pub fn saw(&mut self, seen: &Gen) {
        if seen.n > self.n {
            *self = Self {
                store: seen.store.clone(),
                n: seen.n,
            };
        }
    }
}

/// `twin/{ns}/{name}/desired`: the payload of the contract, and what only devicetwin reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DesiredDoc {
    /// What everybody reads.
    #[serde(flatten)]
    pub doc: TwinDesired,
    /// Ids of the last wishes that were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    /// Mappers at which `config` and `want` may lie: written before they are put there, so that a
    /// restart knows what to clear.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub placed: BTreeSet<Name>,
    /// When each value was decided, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_at_ms: BTreeMap<String, i64>,
    /// Properties whose value has changed since this was last taken.
    #[serde(skip)]
    pub changed: BTreeSet<String>,
}

/// The API's value replaced a local one.
#[derive(Debug, Clone, PartialEq)]
pub struct Overrode {
    /// The property.
    pub property: String,
    /// The API's value.
    pub spec: Value,
    /// The local value.
    pub local: Value,
    /// The generation that it became.
    pub r#gen: Gen,
}

/// Why a desired value cannot be taken.
pub fn check(prop: &Prop, given: &Value) -> Result<Value, Problem> {
    let name = &prop.config.name;
    if prop.config.access == Access::ReadOnly {
        return Err(Problem {
            reason: "ReadOnly",
            message: format!(
                "property {name:?} is ReadOnly in the model: desired value {given} is ignored"
            ),
        });
    }
    let wrong = |e: ValueError| Problem {
        reason: e.reason(),
        message: format!("property {name:?}: desired value {e}"),
    };
    let value = value::retyped(prop.config.kind, given).map_err(wrong)?;
    value::in_range(&prop.config, &value).map_err(wrong)?;
    Ok(value)
}

impl DesiredDoc {
    /// Lays the API's wishes on what is there.
    pub fn apply_spec(
        &mut self,
        merged: &Merged,
        gens: &mut Gens,
        now: Now,
    ) -> (Vec<Overrode>, Vec<Problem>) {
        let (mut overrode, mut problems) = (vec![], vec![]);
        self.doc.props.retain(|name, d| {
            // What the model no longer has, or has with another type, is no wish any more.
            merged
                .props
                .get(name)
                .is_some_and(|p| check(p, &d.value).is_ok())
        });
        for (name, prop) in merged.props.iter() {
            let spec = match &prop.spec {
                None => None,
                Some(text) => match check(prop, &Value::String(text.clone())) {
                    Ok(value) => Some((text.clone(), value)),
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                },
            };
            if let Some(o) = self.spec_says(name, spec, gens, now) {
                overrode.push(o);
            }
        }
        self.forget_times();
        (overrode, problems)
    }

    fn spec_says(
        &mut self,
        name: &str,
        spec: Option<(String, Value)>,
        gens: &mut Gens,
        now: Now,
    ) -> Option<Overrode> {
        let had = self.doc.props.get_mut(name);
        match (had, spec) {
            (None, None) => None,
            (None, Some((text, value))) => {
                self.decide(name, value, Source::Spec, Some(text), gens, now);
                None
            }
            (Some(had), None) if had.source == Source::Local => {
                // Nothing there to win with; whatever the API says next is news.
                had.spec_seen = None;
                None
            }
            (Some(_), None) => {
                self.doc.props.remove(name);
                None
            }
            (Some(had), Some((text, value))) => {
                let changed = had.spec_seen.as_deref() != Some(text.as_str());
                if had.source == Source::Local && !changed {
                    return None;
                }
                let local = (had.source == Source::Local).then(|| had.value.clone());
                had.source = Source::Spec;
                had.spec_seen = Some(text.clone());
                if had.value == value {
                    return None;
                }
                let gen_ = self.decide(name, value.clone(), Source::Spec, Some(text), gens, now);
                local.map(|local| Overrode {
                    property: name.to_owned(),
                    spec: value,
                    local,
                    r#gen: gen_,
                })
            }
        }
    }

    fn decide(
        &mut self,
        name: &str,
        value: Value,
        source: Source,
        spec_seen: Option<String>,
        gens: &mut Gens,
        now: Now,
    ) -> Gen {
        let new = gens.next();
        self.changed.insert(name.to_owned());
        self.doc.r#gen = new.clone();
        self.set_at_ms.insert(name.to_owned(), now.0);
        let desired = Desired {
            value,
            source,
            spec_seen,
            r#gen: new.clone(),
        };
        self.doc.props.insert(name.to_owned(), desired);
        new
    }

    /// Takes a local wish whose value was [`check`]ed; none lets the API's value stand again.
    pub fn set_local(&mut self, prop: &Prop, wish: Option<Value>, gens: &mut Gens, now: Now) {
        let name = prop.config.name.as_str();
        let had = self.doc.props.get(name);
        match wish {
            None => {
                if had.is_none_or(|h| h.source == Source::Spec) {
                    return;
                }
                let spec = prop.spec.as_ref().and_then(|text| {
                    Some((
                        text.clone(),
                        check(prop, &Value::String(text.clone())).ok()?,
                    ))
                });
                match (spec, had.map(|h| h.value.clone())) {
                    (None, _) => {
                        self.doc.props.remove(name);
                    }
                    (Some((text, value)), Some(old)) if old == value => {
                        if let Some(had) = self.doc.props.get_mut(name) {
                            had.source = Source::Spec;
                            had.spec_seen = Some(text);
                        }
                    }
                    (Some((text, value)), _) => {
                        self.decide(name, value, Source::Spec, Some(text), gens, now);
                    }
                }
                self.forget_times();
            }
            Some(value) => {
                if had.is_some_and(|h| h.value == value) {
                    return;
                }
                self.decide(name, value, Source::Local, prop.spec.clone(), gens, now);
            }
        }
    }

    /// Was this wish taken before?
    pub fn knows(&self, id: &str) -> bool {
        !id.is_empty() && self.seen.iter().any(|s| s == id)
    }

    /// Remembers a wish.
    pub fn remember(&mut self, id: &str) {
        if id.is_empty() {
            return;
        }
        if self.seen.len() >= SEEN {
            self.seen.remove(0);
        }
        self.seen.push(id.to_owned());
    }

    /// What the mapper is to write.
    pub fn want(&self, merged: &Merged) -> Want {
        let props: Props<Wanted> = self
            .doc
            .props
            .iter()
            .filter(|(name, _)| merged.props.get(name).is_some_and(|p| p.served))
            .map(|(name, d)| {
                let wanted = Wanted {
                    value: d.value.clone(),
                    r#gen: d.r#gen.clone(),
                };
                (name.clone(), wanted)
            })
            .collect();
        Want {
            r#gen: self.doc.r#gen.clone(),
            props,
        }
    }

    fn forget_times(&mut self) {
        let props = &self.doc.props;
        self.set_at_ms.retain(|name, _| props.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One INT property 0 to 100 with this desired value in the API.
    fn merged(spec: Option<&str>) -> Merged {
        let desired = spec.map(|v| json!({"value": v}));
        let model = serde_json::from_value(json!({"metadata": {"name": "m"}, "spec": {
            "protocol": "x",
            "properties": [{"name": "t", "type": "INT", "minimum": 0, "maximum": 100},
                           {"name": "r", "type": "INT", "accessMode": "ReadOnly"}]}}))
        .unwrap();
        let device = serde_json::from_value(json!({"spec": {"properties": [
            {"name": "t", "desired": desired}]}}))
        .unwrap();
        crate::merged::merge("u", &device, &model)
    }

    struct Bench {
        doc: DesiredDoc,
        gens: Gens,
        spec: Option<&'static str>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                doc: DesiredDoc::default(),
                gens: Gens {
                    store: "s".into(),
                    n: 0,
                },
                spec: None,
            }
        }
        fn api(&mut self, spec: Option<&'static str>) -> (Vec<Overrode>, Vec<Problem>) {
            self.spec = spec;
            self.doc.apply_spec(&merged(spec), &mut self.gens, Now(1))
        }
        fn local(&mut self, wish: Option<i64>) {
            let m = merged(self.spec);
            self.doc.set_local(
                m.props.get("t").unwrap(),
                wish.map(Value::from),
                &mut self.gens,
                Now(2),
            );
        }
        /// Value, source, generation.
        fn now(&self) -> Option<(Value, Source, u64)> {
            let d = self.doc.doc.props.get("t")?;
            Some((d.value.clone(), d.source, d.r#gen.n))
        }
        fn is(&self, value: i64, source: Source, n: u64) {
            assert_eq!(self.now(), Some((json!(value), source, n)));
        }
    }

    #[test]
    fn a_generation_is_spent_only_when_the_value_changes() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.is(20, Source::Spec, 1);
        b.api(Some("20"));
        b.api(Some("20.0"));
        b.is(20, Source::Spec, 1);
        b.api(Some("21"));
        b.is(21, Source::Spec, 2);
        b.api(None);
        assert_eq!(b.now(), None);
        assert_eq!(b.gens.n, 2);
    }

    #[test]
    fn a_local_value_stands_until_the_api_s_value_changes() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.local(Some(30));
        b.is(30, Source::Local, 2);
        assert_eq!(b.api(Some("20")), (vec![], vec![]));
        b.is(30, Source::Local, 2);
        let (overrode, _) = b.api(Some("25"));
        b.is(25, Source::Spec, 3);
        assert_eq!(
            (overrode[0].local.clone(), overrode[0].spec.clone()),
            (json!(30), json!(25))
        );
    }

    #[test]
    fn the_api_agreeing_with_a_local_value_changes_nothing_but_the_source() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.local(Some(30));
        assert_eq!(b.api(Some("30")).0, []);
        b.is(30, Source::Spec, 2);
    }

    #[test]
    fn a_local_value_outlives_the_removal_of_the_api_s_and_loses_to_the_next_one() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.local(Some(30));
        b.api(None);
        b.is(30, Source::Local, 2);
        b.api(Some("20"));
        b.is(20, Source::Spec, 3);
    }

    #[test]
    fn null_lets_the_api_s_value_stand_again() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.local(Some(30));
        b.local(None);
        b.is(20, Source::Spec, 3);
        b.local(None);
        b.is(20, Source::Spec, 3);
        let mut b = Bench::new();
        b.local(Some(30));
        b.local(None);
        assert_eq!(b.now(), None);
    }

    #[test]
    fn the_same_local_value_is_no_news() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.local(Some(20));
        b.is(20, Source::Spec, 1);
        b.local(Some(30));
        b.local(Some(30));
        b.is(30, Source::Local, 2);
    }

    #[test]
    fn what_cannot_be_wished_is_refused_and_what_was_stays() {
        let mut b = Bench::new();
        b.api(Some("20"));
        for (bad, reason, says) in [
            (
                "101",
                "OutOfRange",
                "101 is out of range: allowed are 0 to 100",
            ),
            ("abc", "WrongType", "\"abc\" is not a whole number"),
        ] {
            let (_, problems) = b.api(Some(bad));
            assert_eq!(problems[0].reason, reason);
            assert!(problems[0].message.contains(says), "{problems:?}");
            b.is(20, Source::Spec, 1);
        }
        let m = merged(None);
        let problem = check(m.props.get("r").unwrap(), &json!(1)).unwrap_err();
        assert_eq!(problem.reason, "ReadOnly");
        assert!(check(m.props.get("t").unwrap(), &json!({"a": 1})).is_err());
    }

    #[test]
    fn a_wish_is_remembered_for_a_while() {
        let mut doc = DesiredDoc::default();
        for n in 0..20 {
            doc.remember(&n.to_string());
        }
        assert!(doc.knows("19") && doc.knows("4") && !doc.knows("3") && !doc.knows(""));
    }

    #[test]
    fn the_document_is_the_contract_s_payload_with_additions() {
        let mut b = Bench::new();
        b.api(Some("20"));
        b.doc.remember("w1");
        let bytes = edgebus_bus::payload::write(&b.doc);
        let theirs: TwinDesired = edgebus_bus::payload::read(&bytes).unwrap();
        assert_eq!(theirs, b.doc.doc);
        let ours: DesiredDoc = edgebus_bus::payload::read(&bytes).unwrap();
        b.doc.changed.clear();
        assert_eq!(ours, b.doc);
    }
}
