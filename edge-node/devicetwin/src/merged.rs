//! A Device laid over its DeviceModel: what the mapper is told and what may be said of each
//! property.

use crate::table::Table;
use edgebus_api::{self as api, Object, cycle, merge};
use edgebus_bus::payload::{self, Access, DeviceConfig, OnReconnect, PropertyConfig, ValueType};
use serde_json::Value;
use std::collections::BTreeMap;

/// Something wrong with an object, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// CamelCase word for machines.
    pub reason: &'static str,
    /// What, where, the value, what is allowed.
    pub message: String,
}

/// One property.
#[derive(Debug, Clone, PartialEq)]
pub struct Prop {
    /// Its type and limits; what only the mapper needs is in [`Merged::config`].
    pub config: PropertyConfig,
    /// Half a step of the device's own resolution.
    pub step: f64,
    /// Whether the mapper is told: the Device lists it, or the model says where to find it.
    pub served: bool,
    /// Desired value in the Device, as written there.
    pub spec: Option<String>,
}

/// Device and model as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Name of the model.
    pub model: String,
    /// Which protocol serves it.
    pub protocol: String,
    /// What the mapper is told: a [`DeviceConfig`] as JSON, because it is only handed on and a
    /// thousand of them are much smaller so.
    pub config: Box<[u8]>,
    /// All properties of the model.
    pub props: Table<Prop>,
    /// Method name to the properties that it writes.
    pub methods: BTreeMap<String, Vec<String>>,
    /// What is wrong; the rest is served all the same.
    pub problems: Vec<Problem>,
}

fn names<'a>(list: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<_> = list.take(21).collect();
    match all.len() {
        0 => "none".into(),
        21 => format!("{}, …", all[..20].join(", ")),
        _ => all.join(", "),
    }
}

fn text_of(data: &Object, key: &str) -> Option<String> {
    match merge::get(data, key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Lays the device `uid` over its model. Never fails: what cannot be used is left out and named.
pub fn merge(uid: &str, device: &api::Device, model: &api::DeviceModel) -> Merged {
    let mut problems = Vec::new();
    let spec = &device.spec;
    let mut props: Table<Prop> = Table::default();
    for mp in &model.spec.properties {
        let dp = spec.properties.iter().find(|p| p.name == mp.name);
        if props.contains_key(&mp.name) {
            problems.push(Problem {
                reason: "DuplicateProperty",
                message: format!(
                    "model {:?} has property {:?} twice; the first counts",
                    model.metadata.name, mp.name
                ),
            });
            continue;
        }
        props.insert(&mp.name, property(mp, dp, &mut problems));
    }
    for dp in &spec.properties {
        if !props.contains_key(&dp.name) {
            problems.push(Problem {
                reason: "PropertyNotInModel",
                message: format!(
                    "property {:?} is not in model {:?}; its properties are {}",
                    dp.name,
                    model.metadata.name,
                    names(model.spec.properties.iter().map(|p| p.name.as_str()))
                ),
            });
        }
    }
    let protocol = match spec.protocol.protocol_name.as_str() {
        "" => model.spec.protocol.clone(),
        own => own.to_owned(),
    };
    if protocol.is_empty() {
        problems.push(Problem {
            reason: "NoProtocol",
            message: "spec.protocol.protocolName is empty, and so is the model's spec.protocol; name a mapper's protocol, or mqtt for clients on this node's bus".into(),
        });
    }
    let protocol_config =
        merge::merged(&model.spec.protocol_config_data, &spec.protocol.config_data);
    let on_reconnect = match (
        spec.on_reconnect,
        text_of(&protocol_config, "onReconnect").as_deref(),
    ) {
        (Some(api::OnReconnect::Reapply), _) | (None, Some("reapply")) => OnReconnect::Reapply,
        _ => OnReconnect::Hold,
    };
    let methods = spec
        .methods
        .iter()
        .map(|m| (m.name.clone(), m.property_names.clone()))
        .collect();
    let mut config = DeviceConfig {
        uid: uid.to_owned(),
        protocol: protocol_config,
        properties: Vec::new(),
        on_reconnect,
    };
    for prop in props.values_mut() {
        let slim = PropertyConfig {
            visitor: Object::new(),
            unit: None,
            ..prop.config.clone()
        };
        let full = std::mem::replace(&mut prop.config, slim);
        if prop.served {
            config.properties.push(full);
        }
    }
    Merged {
        model: model.metadata.name.clone(),
        protocol,
        config: payload::write(&config).into(),
        props,
        methods,
        problems,
    }
}

fn property(
    mp: &api::ModelProperty,
    dp: Option<&api::DeviceProperty>,
    problems: &mut Vec<Problem>,
) -> Prop {
    let nothing = Object::new();
    let own = dp.map_or(&nothing, |p| &p.visitors.config_data);
    let mut visitor = merge::merged(&mp.visitors.config_data, own);
    let served = dp.is_some() || !visitor.is_empty();
    let mut say = |reason, what: String| {
        problems.push(Problem {
            reason,
            message: format!("property {:?}: {what}", mp.name),
        });
    };
    let mut limit = |field: &str, text: &Option<api::Text>| {
        let text = text.as_ref()?.as_str().trim();
        if text.is_empty() {
            return None;
        }
        let number = text.parse::<f64>().ok().filter(|f| f.is_finite());
        if number.is_none() {
            say(
                "BadLimit",
                format!("{field} {text:?} is not a number; it is ignored"),
            );
        }
        number
    };
    let minimum = limit("minimum", &mp.minimum);
    let maximum = limit("maximum", &mp.maximum);
    if let (Some(min), Some(max)) = (minimum, maximum)
        && min > max
    {
        say(
            "BadLimit",
            format!("minimum {min} is above maximum {max}: no value is allowed"),
        );
    }
    let period =
        |field: &str, given: Option<&String>| given.cloned().or_else(|| text_of(&visitor, field));
    let collect_period = period("collectPeriod", dp.and_then(|p| p.collect_period.as_ref()));
    let collect_ms = cycle::collect(collect_period.as_deref(), dp.and_then(|p| p.collect_cycle))
        .unwrap_or_else(|e| {
            say("BadPeriod", format!("{e}; it is read once a second"));
            Some(cycle::DEFAULT_MS)
        });
    let report_period = period("reportPeriod", dp.and_then(|p| p.report_period.as_ref()));
    let report_ms = cycle::report(report_period.as_deref(), dp.and_then(|p| p.report_cycle))
        .unwrap_or_else(|e| {
            say("BadPeriod", format!("{e}; it is reported on change"));
            None
        });
    let deadband = dp
        .and_then(|p| p.deadband)
        .or_else(|| text_of(&visitor, "deadband")?.trim().parse().ok())
        .filter(|d: &f64| d.is_finite() && *d >= 0.0);
    if let Some(dp) = dp {
        let mut also = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                visitor.retain(|k, _| !k.eq_ignore_ascii_case(key));
                visitor.insert(key.to_owned(), value);
            }
        };
        also("scale", dp.scale.map(Value::from));
        also("scaleOffset", dp.scale_offset.map(Value::from));
        also("byteOrder", dp.byte_order.clone().map(Value::from));
    }
    let spec = dp
        .and_then(|p| p.desired.as_ref())
        .map(|d| d.value.0.clone())
        .filter(|text| !text.is_empty());
    let scale = text_of(&visitor, "scale").and_then(|s| s.trim().parse::<f64>().ok());
    let step = scale
        .filter(|s| s.is_finite())
        .map_or(0.0, |s| s.abs() / 2.0);
    Prop {
        config: PropertyConfig {
            name: mp.name.clone(),
            kind: kind(mp.kind),
            access: match mp.access_mode {
                api::AccessMode::ReadWrite => Access::ReadWrite,
                api::AccessMode::ReadOnly => Access::ReadOnly,
            },
            minimum,
            maximum,
            unit: Some(mp.unit.clone()).filter(|u| !u.is_empty()),
            visitor,
            collect_ms,
            report_ms,
            deadband,
        },
        step,
        served,
        spec,
    }
}

fn kind(kind: api::PropertyType) -> ValueType {
    match kind {
        api::PropertyType::Int => ValueType::Int,
        api::PropertyType::Float => ValueType::Float,
        api::PropertyType::Double => ValueType::Double,
        api::PropertyType::String => ValueType::String,
        api::PropertyType::Boolean => ValueType::Boolean,
        api::PropertyType::Bytes => ValueType::Bytes,
        api::PropertyType::Stream => ValueType::Stream,
    }
}

/// Are two values of this property the same, as far as the device can show?
pub fn same(prop: &Prop, a: &Value, b: &Value) -> bool {
    if a == b {
        return true;
    }
    let (Some(x), Some(y)) = (a.as_f64(), b.as_f64()) else {
        return false;
    };
    let config = &prop.config;
    // A step of 1 or none leaves whole numbers exact.
    let step = if prop.step >= 0.5 && config.kind == ValueType::Int {
        0.0
    } else {
        prop.step
    };
    // What a deadband keeps from being reported is no difference either.
    let slack = step.max(config.deadband.unwrap_or(0.0));
    if config.kind == ValueType::Int && slack == 0.0 && a.is_i64() && b.is_i64() {
        // They differ, even where a double could not tell.
        return false;
    }
    let float = match config.kind {
        ValueType::Int => 0.0,
        ValueType::Float => x.abs().max(y.abs()) * 1e-6,
        _ => x.abs().max(y.abs()) * 1e-12,
    };
    (x - y).abs() <= slack + float
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model(properties: Value) -> api::DeviceModel {
        serde_json::from_value(json!({
            "metadata": {"name": "m"},
            "spec": {"protocol": "modbus", "protocolConfigData": {"timeout": 1, "port": 502},
                     "properties": properties},
        }))
        .unwrap()
    }
    fn device(spec: Value) -> api::Device {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_device_lies_over_its_model() {
        let m = model(json!([
            {"name": "t", "type": "INT", "minimum": "0", "maximum": 100, "unit": "C",
             "visitors": {"configData": {"register": "HoldingRegister", "offset": 1}}},
            {"name": "unseen", "type": "STRING", "accessMode": "ReadOnly"},
        ]));
        let d = device(json!({
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "Modbus", "configData": {"Port": "1502"}},
            "properties": [{
                "name": "t", "collectCycle": 10_000_000_000i64, "deadband": "0.5", "scale": 0.1,
                "desired": {"value": 21}, "visitors": {"configData": {"Offset": "2"}},
            }],
        }));
        let merged = merge("u", &d, &m);
        assert_eq!(merged.problems, []);
        assert_eq!(merged.protocol, "Modbus");
        let config: DeviceConfig = payload::read(&merged.config).unwrap();
        assert_eq!(
            Value::from(config.protocol.clone()),
            json!({"timeout": 1, "Port": "1502"})
        );
        assert_eq!(
            config.properties.len(),
            1,
            "what nobody can find is not served"
        );
        let t = &config.properties[0];
        assert_eq!(
            (t.minimum, t.maximum, t.collect_ms),
            (Some(0.0), Some(100.0), Some(10_000))
        );
        assert_eq!((t.report_ms, t.deadband), (None, Some(0.5)));
        assert_eq!(
            Value::from(t.visitor.clone()),
            json!({"register": "HoldingRegister", "Offset": "2", "scale": 0.1})
        );
        assert_eq!(merged.props.get("t").unwrap().spec.as_deref(), Some("21"));
        assert_eq!(
            merged.props.get("unseen").unwrap().config.access,
            Access::ReadOnly
        );
    }

    #[test]
    fn problems_say_what_where_and_what_is_allowed() {
        let m = model(
            json!([{"name": "a", "type": "INT", "minimum": "x", "maximum": "5"},
                             {"name": "b", "type": "INT", "minimum": 9, "maximum": "5"}]),
        );
        let d = device(json!({"properties": [
            {"name": "zz"}, {"name": "a", "collectPeriod": "soon"}]}));
        let merged = merge("u", &d, &m);
        let all: Vec<_> = merged
            .problems
            .iter()
            .map(|p| (p.reason, p.message.as_str()))
            .collect();
        for (reason, says) in [
            ("BadLimit", "minimum \"x\" is not a number"),
            ("BadLimit", "minimum 9 is above maximum 5"),
            ("BadPeriod", "collectPeriod \"soon\" is not a period"),
            (
                "PropertyNotInModel",
                "property \"zz\" is not in model \"m\"; its properties are a, b",
            ),
        ] {
            assert!(
                all.iter().any(|(r, m)| *r == reason && m.contains(says)),
                "{says}: {all:?}"
            );
        }
        assert_eq!(merged.props.get("a").unwrap().config.collect_ms, Some(1000));
        let none = merge("u", &device(json!({})), &api::DeviceModel::default());
        assert_eq!(none.problems[0].reason, "NoProtocol");
    }

    #[test]
    fn equality_knows_the_device_s_resolution() {
        let prop = |kind: &str, more: Value| {
            let property = json!({"name": "p", "type": kind});
            let mut own = json!({"name": "p"});
            own.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let d = device(json!({"properties": [own]}));
            merge("u", &d, &model(json!([property])))
                .props
                .get("p")
                .unwrap()
                .clone()
        };
        let scaled = json!({"visitors": {"configData": {"Scale": "0.1"}}});
        for (kind, more, a, b, is) in [
            ("INT", json!({}), json!(21), json!(21), true),
            ("INT", json!({}), json!(21), json!(22), false),
            ("INT", json!({"scale": 1}), json!(21), json!(22), false),
            (
                "INT",
                json!({}),
                json!(i64::MAX),
                json!(i64::MAX - 1),
                false,
            ),
            ("FLOAT", json!({}), json!(0.1), json!(0.1f32 as f64), true),
            ("FLOAT", scaled.clone(), json!(21.37), json!(21.4), true),
            ("FLOAT", scaled, json!(21.37), json!(21.5), false),
            (
                "DOUBLE",
                json!({"deadband": 0.5}),
                json!(1.0),
                json!(1.4),
                true,
            ),
            ("DOUBLE", json!({}), json!(21), json!(21.0), true),
            ("STRING", json!({}), json!("a"), json!("b"), false),
            ("BOOLEAN", json!({}), json!(true), json!(false), false),
        ] {
            assert_eq!(same(&prop(kind, more), &a, &b), is, "{kind} {a} {b}");
        }
    }
}
