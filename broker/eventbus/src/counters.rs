//! What the broker has done since it started; one struct, read by health and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident,)*) => {
        /// Counters and gauges of one broker.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $about])+ pub $name: Count,)* }

        /// The values of [`Counters`] at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
        pub struct Totals { $($(#[doc = $about])+ pub $name: u64,)* }

        impl Counters {
            /// Reads all of them.
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections turned away: too many, too slow, or refused by CONNACK.
    turned_away,
    /// Clients connected now.
    connected,
    /// PUBLISH packets from clients.
    published,
    /// Publishes refused: not allowed, too large, quota, disk.
    refused,
    /// Publishes committed to disk.
    committed,
    /// Transactions that carried them.
    transactions,
    /// PUBLISH packets to clients.
    delivered,
    /// QoS 0 messages dropped because a subscriber was too slow.
    dropped,
    /// Messages dropped because an absent session's quota was full.
    session_dropped,
    /// Connections ended because they fell too far behind.
    too_slow,
    /// Connections ended for silence beyond their keep-alive.
    timed_out,
    /// Packets that broke the protocol.
    protocol_errors,
}

/// A number that many tasks change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }
    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
    /// `by` more.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
