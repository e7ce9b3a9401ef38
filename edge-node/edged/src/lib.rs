//! The light kubelet, as far as the node itself: what it is and how it is (`node/status`), and
//! that it lives (`node/beat`, after each finished pass).

mod condition;
mod machine;
mod run;
mod status;

pub use run::{Config, run};
