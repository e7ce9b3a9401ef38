//! HTTP: what a request path, query and headers mean, and how answers are written.

mod accept;
mod answer;
mod discovery;
mod openapi;
mod path;
mod query;
mod resources;
mod serve;
mod stream;

pub use query::Query;
pub use serve::serve;

/// The version of Kubernetes whose API this is; the build part tells it apart.
pub const GIT_VERSION: &str = concat!("v1.33.0+edgebus-", env!("CARGO_PKG_VERSION"));

/// Runs every parser of this module over what a client could send.
#[cfg(test)]
pub fn untrusted(a: &str, b: &str) {
    path::parse(a);
    accept::discovery(Some(a));
    drop((Query::parse(b), accept::negotiate(Some(a))));
}
