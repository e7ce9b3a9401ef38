//! cloud-bridge: Kubernetes objects to edge nodes over the link, and their status back; enrolment.
//!
//! It keeps nothing that Kubernetes does not: what is in memory is rebuilt from lists, and what must last
//! (the enrolment CA, tokens, records of nodes) lies in Secrets of its own namespace.
//!
//! ```text
//! API ──watch──► mirror ──dirty topics──► one task per node ──Put, Del──► edge
//! API ◄──status, Events, Lease── up ◄──────────┘ ◄──twins, status, beats── edge
//! ```

mod admin;
mod away;
mod ca;
mod cluster;
mod config;
mod device;
mod enrol;
mod event;
mod http;
mod hub;
mod link;
mod metrics;
mod mirror;
mod node;
pub mod operator;
mod place;
mod record;
mod rows;
mod run;
mod seen;
mod shared;
mod tls;
mod token;
mod up;
mod vault;
mod watch;

pub use admin::{NodeInfo, node_forget, node_list, node_revoke};
pub use cluster::BadKubeconfig;
pub use config::{Config, NAMESPACE, PORT};
pub use rows::{NODE_LABEL, NODES_ANNOTATION};
pub use run::run;
pub use token::{TokenInfo, TokenSpec, token_create, token_delete, token_list};
