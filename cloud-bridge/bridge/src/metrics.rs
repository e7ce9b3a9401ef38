//! Counters of the bridge, as text for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use edgebus_linkproto::Lane;

/// All of them; relaxed, since nothing is decided by them.
#[derive(Debug, Default)]
pub struct Metrics {
    pub nodes_connected: AtomicU64,
    pub connections: AtomicU64,
    pub refused_connections: AtomicU64,
    pub enrolled: AtomicU64,
    pub enrol_refused: AtomicU64,
    pub api_writes: AtomicU64,
    pub api_write_errors: AtomicU64,
    pub nacks_permanent: AtomicU64,
    pub nacks_transient: AtomicU64,
    pub edge_rejected: AtomicU64,
    pub watch_errors: AtomicU64,
    pub up_pending: AtomicU64,
    /// Frames not yet acknowledged, in the order of [`Lane::ALL`].
    pub down_in_flight: [AtomicU64; Lane::ALL.len()],
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Adds some.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

/// Moves a gauge from what one task had to what it has.
pub fn shift(gauge: &AtomicU64, had: &mut usize, has: usize) {
    if has >= *had {
        gauge.fetch_add((has - *had) as u64, Relaxed);
    } else {
        gauge.fetch_sub((*had - has) as u64, Relaxed);
    }
    *had = has;
}

impl Metrics {
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, kind, value) in [
            ("nodes_connected", "gauge", &self.nodes_connected),
            ("connections_total", "counter", &self.connections),
            (
                "refused_connections_total",
                "counter",
                &self.refused_connections,
            ),
            ("enrolled_total", "counter", &self.enrolled),
            ("enrol_refused_total", "counter", &self.enrol_refused),
            ("api_writes_total", "counter", &self.api_writes),
            ("api_write_errors_total", "counter", &self.api_write_errors),
            ("nacks_permanent_total", "counter", &self.nacks_permanent),
            ("nacks_transient_total", "counter", &self.nacks_transient),
            ("edge_rejected_total", "counter", &self.edge_rejected),
            ("watch_errors_total", "counter", &self.watch_errors),
            ("up_pending", "gauge", &self.up_pending),
            ("link_received_bytes_total", "counter", &self.bytes_in),
            ("link_sent_bytes_total", "counter", &self.bytes_out),
        ] {
            let value = value.load(Relaxed);
            // Writing to a String does not fail.
            writeln!(
                out,
                "# TYPE edgebus_bridge_{name} {kind}\nedgebus_bridge_{name} {value}"
            )
            .unwrap_or_default();
        }
        out.push_str("# TYPE edgebus_bridge_down_in_flight gauge\n");
        for (lane, value) in Lane::ALL.iter().zip(&self.down_in_flight) {
            let (lane, value) = (format!("{lane:?}").to_lowercase(), value.load(Relaxed));
            writeln!(
                out,
                "edgebus_bridge_down_in_flight{{lane=\"{lane}\"}} {value}"
            )
            .unwrap_or_default();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_moves_by_what_changed() {
        let metrics = Metrics::default();
        let (mut one, mut two) = (0, 0);
        shift(&metrics.up_pending, &mut one, 5);
        shift(&metrics.up_pending, &mut two, 2);
        shift(&metrics.up_pending, &mut one, 1);
        let text = metrics.text();
        assert!(text.contains("edgebus_bridge_up_pending 3\n"), "{text}");
        assert!(
            text.contains("edgebus_bridge_down_in_flight{lane=\"object\"} 0\n"),
            "{text}"
        );
    }
}
