//! When to dial again: at once after a connection that worked, every 200-400 ms while an outage is young, then
//! later and later.
//!
//! An outage is over when a connection has lived for a while, not when one was made: a cloud that takes nodes
//! and drops them at once is still away. A changed network makes an old outage young again, since a modem that
//! has just come up needs a moment until packets pass.

use std::time::{Duration, Instant};

/// The longest pause of a young outage; jitter takes up to half of it off.
const PAUSE: Duration = Duration::from_millis(400);
/// An outage is young for so long.
const YOUNG: Duration = Duration::from_secs(600);
/// What an older outage adds to the pause: so much of the time beyond [`YOUNG`].
const GROWTH: u32 = 60;
/// A connection that lived this long earns an immediate retry; a shorter one may be flapping.
const WORKED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Backoff {
    max: Duration,
    /// When the outage began, or the network changed in it.
    since: Instant,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    AtOnce,
    Soon,
    /// The other end said no: nobody is in a hurry.
    Late,
}

impl Backoff {
    /// Nothing has been tried yet; `max` is the longest pause.
    pub fn new(max: Duration, now: Instant) -> Backoff {
        Backoff {
            max,
            since: now,
            next: Next::AtOnce,
        }
    }

    /// A connection ended after having been open for so long.
    pub fn ended(&mut self, open: Duration, now: Instant) {
        self.next = Next::Soon;
        if open >= WORKED {
            *self = Backoff::new(self.max, now);
        }
    }

    /// An attempt failed.
    pub fn failed(&mut self) {
        self.next = Next::Soon;
    }

    /// The other end answered, and said no.
    pub fn refused(&mut self) {
        self.next = Next::Late;
    }

    /// This machine's network is another one than a moment ago.
    pub fn network_changed(&mut self, now: Instant) {
        *self = Backoff::new(self.max, now);
    }

    /// The pause before the next attempt; `dice` is any number.
    pub fn pause(&self, dice: u32, now: Instant) -> Duration {
        let full = match self.next {
            Next::AtOnce => return Duration::ZERO,
            Next::Soon => {
                let old = now.duration_since(self.since).saturating_sub(YOUNG);
                (PAUSE + old / GROWTH).min(self.max)
            }
            Next::Late => self.max,
        };
        let part = f64::from(dice) / f64::from(u32::MAX);
        full.mul_f64(0.5 + 0.5 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_pause_stays_short_for_ten_minutes_and_then_grows_to_its_bound() {
        let start = Instant::now();
        let mut b = Backoff::new(MAX, start);
        assert_eq!(
            b.pause(u32::MAX, start),
            Duration::ZERO,
            "the first is at once"
        );
        b.failed();
        for (outage, longest) in [
            (s(0), PAUSE),
            (s(60), PAUSE),
            (s(600), PAUSE),
            (s(660), PAUSE + s(1)),
            (s(900), PAUSE + s(5)),
            (s(1200), MAX),
            (s(86_400), MAX),
        ] {
            let now = start + outage;
            assert_eq!(b.pause(u32::MAX, now), longest, "{outage:?}");
            assert_eq!(b.pause(0, now), longest / 2, "{outage:?}");
        }
        b.ended(s(60), start + s(90_000));
        assert_eq!(b.pause(u32::MAX, start + s(90_000)), Duration::ZERO);
    }

    #[test]
    fn a_bound_below_the_first_pause_holds() {
        let start = Instant::now();
        let mut b = Backoff::new(Duration::from_millis(100), start);
        b.failed();
        assert_eq!(b.pause(u32::MAX, start), Duration::from_millis(100));
    }

    #[test]
    fn a_connection_that_dies_young_is_part_of_the_outage() {
        let start = Instant::now();
        let mut b = Backoff::new(MAX, start);
        b.ended(Duration::from_millis(10), start);
        assert_eq!(b.pause(u32::MAX, start), PAUSE);
        b.ended(Duration::from_millis(10), start + s(86_400));
        assert_eq!(b.pause(u32::MAX, start + s(86_400)), MAX);
    }

    #[test]
    fn a_refusal_is_not_repeated_in_a_hurry_until_something_else_happens() {
        let start = Instant::now();
        let mut b = Backoff::new(MAX, start);
        b.ended(s(60), start);
        b.refused();
        assert_eq!(b.pause(u32::MAX, start), MAX);
        b.failed();
        assert_eq!(b.pause(u32::MAX, start), PAUSE);
    }

    #[test]
    fn a_changed_network_is_tried_at_once_and_makes_the_outage_young_again() {
        let start = Instant::now();
        let mut b = Backoff::new(MAX, start);
        b.failed();
        let later = start + s(86_400);
        b.network_changed(later);
        assert_eq!(b.pause(u32::MAX, later), Duration::ZERO);
        b.failed();
        assert_eq!(b.pause(u32::MAX, later + s(1)), PAUSE);
    }
}
