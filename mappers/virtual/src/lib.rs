//! The virtual mapper: devices that exist only in this process's memory. A first try without
//! hardware, and a peer for tests.
//!
//! Device `configData`: `id` (devices with equal ids share their values), `failing` (bool: gives no answer). Property `configData`: `initial` (its
//! first value), `simulate` `counter` (one more at each read), `sine` (between `minimum` and
//! `maximum`, once a minute) or `none`.

use edgebus_bus::DeviceId;
use edgebus_bus::payload::{Object, PropertyConfig, ValueType};
use edgebus_mapper_sdk::{LineError, PointError, Protocol, coerce};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::time::Instant;

/// The protocol.
#[derive(Default)]
pub struct Virtual;

/// A device.
#[derive(Debug, Clone, PartialEq)]
pub struct Dev {
    /// Names the memory: the device's own name, or one that devices share.
    id: String,
    failing: bool,
}

/// How a property behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Simulate {
    None,
    Counter,
    Sine,
}

/// A property.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    name: String,
    kind: ValueType,
    simulate: Simulate,
    initial: Value,
    low: f64,
    high: f64,
}

/// The memory of the devices.
pub struct Memory {
    start: Instant,
    values: HashMap<(String, String), Value>,
}

fn flag(config: &Object, key: &str) -> Result<bool, String> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(Value::String(s)) if s.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(s)) if s.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!(
            "spec.protocol.configData: {key} = {other} is not valid: true or false"
        )),
    }
}

impl Protocol for Virtual {
    const NAME: &'static str = "virtual";
    type Dev = Dev;
    type Point = Point;
    type Line = Memory;

    fn device(&self, id: &DeviceId, config: &Object) -> Result<Dev, String> {
        // Its own memory, unless it asks to share one by name.
        let shared = config.get("id").or(config.get("deviceid"));
        let id = shared.map_or_else(|| id.to_string(), Value::to_string);
        Ok(Dev {
            id,
            failing: flag(config, "failing")?,
        })
    }

    fn point(&self, _: &Dev, property: &PropertyConfig, visitor: &Object) -> Result<Point, String> {
        let simulate = match visitor
            .get("simulate")
            .and_then(Value::as_str)
            .map(str::to_lowercase)
            .as_deref()
        {
            None | Some("none" | "") => Simulate::None,
            Some("counter") => Simulate::Counter,
            Some("sine") => Simulate::Sine,
            Some(other) => {
                return Err(format!(
                    "property {:?}: simulate = {other:?} is not valid: none, counter or sine",
                    property.name
                ));
            }
        };
        let zero = match property.kind {
            ValueType::String | ValueType::Bytes => json!(""),
            ValueType::Boolean => json!(false),
            _ => json!(property.minimum.unwrap_or(0.0)),
        };
        let initial =
            coerce(property, visitor.get("initial").unwrap_or(&zero)).map_err(|e| e.to_string())?;
        Ok(Point {
            name: property.name.clone(),
            kind: property.kind,
            simulate,
            initial,
            low: property.minimum.unwrap_or(0.0),
            high: property.maximum.unwrap_or(100.0),
        })
    }

    // Every device has a memory of its own name; one memory serves all.
    fn line(&self, _: &Dev) -> String {
        "memory".to_owned()
    }

    async fn open(&self, _: &Dev) -> Result<Memory, LineError> {
        Ok(Memory {
            start: Instant::now(),
            values: HashMap::new(),
        })
    }

    async fn read(
        &self,
        memory: &mut Memory,
        dev: &Dev,
        points: &[&Point],
    ) -> Result<Vec<Result<Value, PointError>>, LineError> {
        if dev.failing {
            return Err(LineError::Silent("it is configured as failing".into()));
        }
        Ok(points.iter().map(|p| Ok(memory.read(dev, p))).collect())
    }

    async fn write(
        &self,
        memory: &mut Memory,
        dev: &Dev,
        point: &Point,
        value: &Value,
    ) -> Result<Result<(), PointError>, LineError> {
        if dev.failing {
            return Err(LineError::Silent("it is configured as failing".into()));
        }
        memory
            .values
            .insert((dev.id.clone(), point.name.clone()), value.clone());
        Ok(Ok(()))
    }

    fn schema(&self) -> Object {
        let schema = json!({
            "protocol": {"type": "object", "properties": {"id": {"type": "string"}, "failing": {"type": "boolean"}}},
            "visitor": {"type": "object", "properties": {"initial": {}, "simulate": {"enum": ["none", "counter", "sine"]}}}});
        schema.as_object().cloned().unwrap_or_default()
    }
}

impl Memory {
    fn read(&mut self, dev: &Dev, point: &Point) -> Value {
        let now = self.start.elapsed().as_secs_f64();
        let cell = self
            .values
            .entry((dev.id.clone(), point.name.clone()))
            .or_insert_with(|| point.initial.clone());
        match point.simulate {
            Simulate::None => {}
            Simulate::Counter => *cell = json!(cell.as_i64().unwrap_or(0).wrapping_add(1)),
            Simulate::Sine => {
                let (mid, half) = (
                    (point.low + point.high) / 2.0,
                    (point.high - point.low) / 2.0,
                );
                let v = mid + half * (now * std::f64::consts::TAU / 60.0).sin();
                *cell = if point.kind == ValueType::Int {
                    json!(v.round() as i64)
                } else {
                    json!((v * 1000.0).round() / 1000.0)
                };
            }
        }
        cell.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(name: &str) -> DeviceId {
        DeviceId::new("d", name).unwrap()
    }

    #[tokio::test]
    async fn two_devices_have_two_memories_unless_they_name_one() {
        let object = |v: Value| v.as_object().cloned().unwrap();
        let mut memory = Memory {
            start: Instant::now(),
            values: HashMap::new(),
        };
        for (config, seen) in [(json!({}), json!(1)), (json!({"id": "both"}), json!(7))] {
            let [a, b] =
                ["a", "b"].map(|n| Virtual.device(&me(n), &object(config.clone())).unwrap());
            let point = Virtual.point(&a, &property("INT"), &Object::new()).unwrap();
            Virtual
                .write(&mut memory, &a, &point, &json!(7))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                Virtual.read(&mut memory, &b, &[&point]).await.unwrap(),
                [Ok(seen)]
            );
        }
    }

    fn property(kind: &str) -> PropertyConfig {
        serde_json::from_value(json!({"name": "p", "type": kind, "minimum": 1.0, "maximum": 9.0}))
            .unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read_back() {
        let dev = Virtual.device(&me("p"), &Object::new()).unwrap();
        let point = Virtual
            .point(&dev, &property("INT"), &Object::new())
            .unwrap();
        let mut memory = Virtual.open(&dev).await.unwrap();
        assert_eq!(
            Virtual.read(&mut memory, &dev, &[&point]).await.unwrap(),
            [Ok(json!(1))]
        );
        Virtual
            .write(&mut memory, &dev, &point, &json!(7))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            Virtual.read(&mut memory, &dev, &[&point]).await.unwrap(),
            [Ok(json!(7))]
        );
    }

    #[test]
    fn an_initial_value_out_of_range_is_refused() {
        let visitor = json!({"initial": 10});
        let said = Virtual
            .point(
                &Virtual.device(&me("p"), &Object::new()).unwrap(),
                &property("INT"),
                visitor.as_object().unwrap(),
            )
            .unwrap_err();
        assert!(said.contains("outside 1 to 9"), "{said}");
    }
}
