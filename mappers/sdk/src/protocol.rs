//! What a mapper author writes: one field protocol. The three kinds of failure are kept apart,
//! because each costs something else: a [`PointError`] one value, [`LineError::Silent`] one device,
//! [`LineError::Lost`] the connection.

use edgebus_bus::DeviceId;
use edgebus_bus::payload::{Object, PropertyConfig};
use serde_json::Value;
use std::future::Future;

/// The line failed, not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// This device gave no (valid) answer; the line may serve others.
    #[error("{0}")]
    Silent(String),
    /// The line itself is unusable and must be opened anew.
    #[error("{0}")]
    Lost(String),
}

/// One point failed; its neighbours stay good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct PointError {
    /// One word for machines: `deviceFailure`, `outOfRange`, `typeMismatch`, …
    pub cause: &'static str,
    /// A sentence for people: what was asked, what came back.
    pub why: String,
}

impl PointError {
    /// An error with its cause.
    pub fn new(cause: &'static str, why: impl Into<String>) -> Self {
        Self {
            cause,
            why: why.into(),
        }
    }
}

/// One field protocol.
pub trait Protocol: Send + Sync + 'static {
    /// `spec.protocol.protocolName` of the devices it serves.
    const NAME: &'static str;
    /// What `spec.protocol.configData` means.
    type Dev: Clone + PartialEq + Send + Sync + 'static;
    /// What a property's `visitors.configData` means.
    type Point: Clone + PartialEq + Send + Sync + 'static;
    /// One open bus, socket or session. Questions on it are strictly one at a time.
    type Line: Send + 'static;

    /// Reads `spec.protocol.configData`, its keys in lower case. The error names key, value and
    /// what is allowed.
    fn device(&self, id: &DeviceId, config: &Object) -> Result<Self::Dev, String>;

    /// Reads one property's `visitors.configData`, its keys in lower case.
    fn point(
        &self,
        dev: &Self::Dev,
        property: &PropertyConfig,
        visitor: &Object,
    ) -> Result<Self::Point, String>;

    /// Devices with equal text share a line.
    fn line(&self, dev: &Self::Dev) -> String;

    /// What all devices of a line must agree on (baud rate, …).
    fn settings(&self, _dev: &Self::Dev) -> String {
        String::new()
    }

    /// How long to let the line rest and when to give a device up.
    fn timing(&self, _dev: &Self::Dev) -> crate::Settings {
        crate::Settings::default()
    }

    /// Can the point be read, so that a write can be proved?
    fn readable(&self, _point: &Self::Point) -> bool {
        true
    }

    /// Can the point be written at all?
    fn writable(&self, _point: &Self::Point) -> bool {
        true
    }

    /// Is what was read what was wanted? (Protocols that round, say so here.)
    fn same(&self, _point: &Self::Point, wanted: &Value, read: &Value) -> bool {
        crate::same(wanted, read)
    }

    /// Opens the line of `dev`. Must end by itself within a bounded time.
    fn open(&self, dev: &Self::Dev) -> impl Future<Output = Result<Self::Line, LineError>> + Send;

    /// Reads points: one result each, in their order. Must end by itself within a bounded time.
    fn read(
        &self,
        line: &mut Self::Line,
        dev: &Self::Dev,
        points: &[&Self::Point],
    ) -> impl Future<Output = Result<Vec<Result<Value, PointError>>, LineError>> + Send;

    /// Writes one point. Must end by itself within a bounded time. The value already has the
    /// property's type and lies in its range.
    fn write(
        &self,
        line: &mut Self::Line,
        dev: &Self::Dev,
        point: &Self::Point,
        value: &Value,
    ) -> impl Future<Output = Result<Result<(), PointError>, LineError>> + Send;

    /// JSON Schemas of the two configData kinds: `{"protocol": …, "visitor": …}`.
    fn schema(&self) -> Object {
        Object::new()
    }
}

/// The same object with its keys in lower case, nested objects too: KubeEdge manifests spell keys
/// in every way.
pub fn lower_keys(object: &Object) -> Object {
    let lower = |value: &Value| match value {
        Value::Object(inner) => Value::Object(lower_keys(inner)),
        other => other.clone(),
    };
    object
        .iter()
        .map(|(k, v)| (k.to_lowercase(), lower(v)))
        .collect()
}
