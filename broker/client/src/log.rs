//! Logs go to standard error; the level can be changed while the process runs.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging, once per process: at `EDGEBUS_LOG` if set (a level, or a filter such as
/// `info,edgebus_link=debug`), else at `default`.
pub fn start(default: &str) {
    let wanted = std::env::var("EDGEBUS_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = filter(&wanted).unwrap_or_else(|_| EnvFilter::new(default));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false);
    let begun = tracing_subscriber::registry().with(filter).with(lines);
    // Already started by whoever called us: theirs stands.
    if begun.try_init().is_ok() && LEVEL.set(handle).is_err() {
        tracing::debug!("logging was started twice");
    }
}

/// The router library narrates each subscription at `info`, as if it were the application; the
/// Kubernetes client calls every attempt that fails an error, besides returning it.
fn filter(wanted: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!(
        "rumqttd=off,kube_client::client::builder=off,{wanted}"
    ))
}

/// Changes the level.
pub fn set(level: &str) -> Result<(), String> {
    let filter = filter(level).map_err(|e| format!("log level {level:?}: {e}"))?;
    let handle = LEVEL
        .get()
        .ok_or("this process set up its logging by itself")?;
    handle.reload(filter).map_err(|e| e.to_string())
}
