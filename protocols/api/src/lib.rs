//! What Kubernetes knows of devices: `devices.kubeedge.io/v1beta1` Device, DeviceModel and
//! DeviceStatus, field for field as KubeEdge has them, with optional additions; their CRDs; and the
//! rules that both ends of the link must agree on (cycles, trimming, sealing).
//!
//! Readers are lenient (numbers and booleans may be quoted, fields nobody knows are kept); writers
//! produce KubeEdge's shapes. Nothing here does I/O or looks at a clock.

mod crd;
pub mod cycle;
mod device;
mod flex;
pub mod merge;
mod meta;
mod model;
mod push;
pub mod seal;
mod status;
mod trim;

pub use crd::crds;
pub use device::*;
pub use flex::Text;
pub use meta::{Meta, OwnerReference};
pub use model::*;
pub use push::*;
pub use status::*;
pub use trim::{LAST_APPLIED, trim};

use serde_json::{Map, Value};

/// API group of the device kinds.
pub const GROUP: &str = "devices.kubeedge.io";
/// Their version.
pub const VERSION: &str = "v1beta1";
/// `apiVersion` of the device kinds.
pub const API_VERSION: &str = "devices.kubeedge.io/v1beta1";

/// Free JSON object.
pub type Object = Map<String, Value>;
