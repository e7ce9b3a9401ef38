//! The Modbus mapper: TCP and RTU (Modbus Application Protocol V1.1b3, Modbus over Serial Line
//! V1.02), for KubeEdge's v1beta1 device configuration as it is written.
//!
//! - [`config`]: `configData` to addresses and line settings
//! - [`value`]: registers to typed values and back
//! - [`batch`]: many points to few reads
//! - [`line`]: the questions themselves, and why a late answer is never taken for another's
//! - [`rtu`]: a serial port that knows silence

pub mod batch;
pub mod config;
pub mod line;
pub mod rtu;
pub mod value;

use config::{Dev, Point};
use edgebus_bus::DeviceId;
use edgebus_bus::payload::{Object, PropertyConfig};
use edgebus_mapper_sdk::{LineError, PointError, Protocol, Settings};
use serde_json::{Value, json};

/// The protocol.
pub struct Modbus;

impl Protocol for Modbus {
    const NAME: &'static str = "modbus";
    type Dev = Dev;
    type Point = Point;
    type Line = line::Line;

    fn device(&self, _: &DeviceId, config: &Object) -> Result<Dev, String> {
        Dev::read(config)
    }

    fn point(
        &self,
        dev: &Dev,
        property: &PropertyConfig,
        visitor: &Object,
    ) -> Result<Point, String> {
        Point::read(dev, property, visitor)
    }

    fn line(&self, dev: &Dev) -> String {
        dev.link.key()
    }

    fn settings(&self, dev: &Dev) -> String {
        dev.link.settings()
    }

    fn timing(&self, dev: &Dev) -> Settings {
        Settings {
            demote_from_ms: dev.timeout_ms.max(500),
            ..Settings::default()
        }
    }

    fn writable(&self, point: &Point) -> bool {
        point.table.writable()
    }

    fn same(&self, point: &Point, wanted: &Value, read: &Value) -> bool {
        // What matters is what the registers hold, not how a scale rounds it.
        match (value::encode(point, wanted), value::encode(point, read)) {
            (Ok(a), Ok(b)) => a == b,
            _ => edgebus_mapper_sdk::same(wanted, read),
        }
    }

    async fn open(&self, dev: &Dev) -> Result<line::Line, LineError> {
        line::Line::open(dev).await
    }

    async fn read(
        &self,
        line: &mut line::Line,
        dev: &Dev,
        points: &[&Point],
    ) -> Result<Vec<Result<Value, PointError>>, LineError> {
        line.read(dev, points).await
    }

    async fn write(
        &self,
        line: &mut line::Line,
        dev: &Dev,
        point: &Point,
        value: &Value,
    ) -> Result<Result<(), PointError>, LineError> {
        line.write(dev, point, value).await
    }

    fn schema(&self) -> Object {
        let Value::Object(schema) =
            json!({"protocol": config::dev_schema(), "visitor": config::point_schema()})
        else {
            return Object::new();
        };
        schema
    }
}
