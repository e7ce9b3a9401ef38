//! When to dial again: at once after a connection that worked, then later and later, with jitter.
//!
//! The pause grows with the outage (a twentieth of it, within bounds), so that a short one costs little more
//! than its own length and ten thousand nodes do not all knock at the moment a long one ends.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
/// A connection that lived this long earns an immediate retry; a shorter one may be flapping.
const WORKED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Backoff {
    max: Duration,
    failures: u32,
    outage: Duration,
}

impl Backoff {
    pub fn new(max: Duration) -> Backoff {
        Backoff {
            max,
            failures: 0,
            outage: Duration::ZERO,
        }
    }

    /// A connection ended after having been open for so long.
    pub fn ended(&mut self, open: Duration) {
        if open >= WORKED {
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        self.outage = Duration::ZERO;
    }

    /// An attempt failed; nothing has worked for `outage`.
    pub fn failed(&mut self, outage: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.outage = outage;
    }

    /// The other end said no: nobody is in a hurry.
    pub fn refused(&mut self) {
        self.failures = self.failures.max(1);
        self.outage = self.max.saturating_mul(20);
    }

    /// The pause before the next attempt; `dice` is any number.
    pub fn pause(&self, dice: u32) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let full = (self.outage / 20).clamp(FIRST.min(self.max), self.max);
        let part = f64::from(dice) / f64::from(u32::MAX);
        full.mul_f64(0.5 + 0.5 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_at_once_and_later_ones_wait_for_a_part_of_the_outage() {
        let mut b = Backoff::new(Duration::from_secs(10));
        assert_eq!(b.pause(7), Duration::ZERO);
        b.failed(Duration::from_millis(1));
        assert_eq!(b.pause(u32::MAX), FIRST);
        assert_eq!(b.pause(0), FIRST / 2);
        b.failed(Duration::from_secs(60));
        assert_eq!(b.pause(u32::MAX), Duration::from_secs(3));
        b.failed(Duration::from_secs(86_400));
        assert_eq!(b.pause(u32::MAX), Duration::from_secs(10));
        b.ended(Duration::from_secs(60));
        assert_eq!(b.pause(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn a_connection_that_dies_young_earns_no_immediate_retry() {
        let mut b = Backoff::new(Duration::from_secs(10));
        b.ended(Duration::from_millis(10));
        assert_eq!(b.pause(u32::MAX), FIRST);
        b.refused();
        assert_eq!(b.pause(u32::MAX), Duration::from_secs(10));
    }
}
