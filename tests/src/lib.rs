//! The harness: real processes of the product and real peers written by others, each in a folder of
//! its own, on loopback and free ports, ended when the test ends.
//!
//! - [`run`]: processes, waiting, where programs are
//! - [`cloud`]: standalone and cloud-bridge, kubectl
//! - [`node`]: an edge node and its units
//! - [`field`]: Modbus devices, mosquitto clients

pub mod cloud;
pub mod field;
pub mod node;
pub mod run;

pub use cloud::Cloud;
pub use node::Node;
pub use run::{eventually, eventually_for};
