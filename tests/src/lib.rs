//! The harness: real processes of the product and real peers written by others, each in a folder of
//! its own, on loopback and free ports, ended when the test ends.
//!
//! - [`run`]: processes, waiting, where programs are
//! - [`cloud`]: standalone and cloud-bridge, kubectl
//! - [`node`]: an edge node and its units
//! - [`field`]: Modbus devices, mosquitto clients
//! - [`plant`]: many Modbus devices in this process; [`mqtt`]: a publisher with an account of its own
//! - [`api`]: the Kubernetes API by kube-rs
//! - [`soak`]: kills at random, under load

pub mod api;
pub mod cloud;
pub mod field;
pub mod mqtt;
pub mod node;
pub mod plant;
pub mod run;
pub mod soak;

pub use cloud::Cloud;
pub use node::Node;
pub use run::{eventually, eventually_for};
