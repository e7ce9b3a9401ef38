//! How a daemon is told to end.

use tokio_util::sync::CancellationToken;

/// SIGTERM and Ctrl-C end a daemon cleanly.
pub async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut term), Ok(mut int)) => {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
        (Err(e), _) | (_, Err(e)) => {
            tracing::error!(error = %e, "signals cannot be heard; stopping")
        }
    }
    stop.cancel();
}
