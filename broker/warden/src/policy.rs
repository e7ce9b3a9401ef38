//! When a unit that has ended is started again. Pure.

use edgebus_bus::unit::EXIT_CONFIG;
use std::time::Duration;

/// A unit that lived so long, or that was up, has not failed to start.
const YOUNG: Duration = Duration::from_secs(10);
/// Failures in a row after which it is tried rarely.
const PATIENT: u32 = 5;
/// How rarely.
const RARELY: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(60);
/// Early deaths in a row, of a unit that was up each time, that cost nothing: chance, or somebody
/// who kills. After that it may be its own doing, and a loop must not eat the processor.
const UNLUCKY: u32 = 10;

/// What to do with a unit that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it again now.
    Now,
    /// Start it again after this time.
    After(Duration),
    /// The same, but it is failing for good.
    Rarely(Duration),
    /// Its configuration is wrong: start it when its file has changed.
    WhenReplaced,
}

/// Failures of one unit in a row.
#[derive(Debug, Default)]
pub struct Policy {
    failures: u32,
    unlucky: u32,
}

impl Policy {
    /// It has ended. `chance` is 0 to 1.
    pub fn ended(&mut self, code: Option<i32>, lived: Duration, was_up: bool, chance: f64) -> Next {
        if code == Some(EXIT_CONFIG) {
            return Next::WhenReplaced;
        }
        if lived >= YOUNG {
            *self = Self::default();
            return Next::Now;
        }
        if was_up {
            self.failures = 0;
            self.unlucky += 1;
            return if self.unlucky > UNLUCKY {
                Next::After(Duration::from_secs(1).mul_f64(0.5 + chance / 2.0))
            } else {
                Next::Now
            };
        }
        self.failures += 1;
        match self.failures {
            1 => Next::Now,
            n if n > PATIENT => Next::Rarely(RARELY.mul_f64(0.9 + chance / 5.0)),
            n => {
                let full = Duration::from_secs(1 << (n - 2)).min(LONGEST);
                Next::After(full.mul_f64(0.5 + chance / 2.0))
            }
        }
    }

    /// Its file has changed: what it did before says nothing.
    pub fn replaced(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG_DEATH: Duration = Duration::from_millis(50);

    #[test]
    fn the_first_death_costs_nothing_and_the_following_wait_longer() {
        let mut p = Policy::default();
        let mut die = || p.ended(Some(1), YOUNG_DEATH, false, 1.0);
        assert_eq!(die(), Next::Now);
        for seconds in [1, 2, 4, 8] {
            assert_eq!(die(), Next::After(Duration::from_secs(seconds)));
        }
        assert!(matches!(die(), Next::Rarely(_)));
        assert!(matches!(die(), Next::Rarely(_)));
    }

    #[test]
    fn a_unit_that_was_up_is_never_given_up_however_often_it_dies() {
        let mut p = Policy::default();
        for n in 0..100 {
            let soon = Next::After(Duration::from_secs(1));
            let want = if n < 10 { Next::Now } else { soon };
            assert_eq!(p.ended(None, YOUNG_DEATH, true, 1.0), want);
        }
        assert_eq!(p.ended(Some(0), YOUNG, false, 0.5), Next::Now);
        assert_eq!(p.ended(None, YOUNG_DEATH, true, 1.0), Next::Now);
    }

    #[test]
    fn bad_configuration_waits_for_another_file() {
        let mut p = Policy::default();
        assert_eq!(
            p.ended(Some(64), YOUNG_DEATH, false, 0.5),
            Next::WhenReplaced
        );
    }

    #[test]
    fn another_file_starts_anew() {
        let mut p = Policy::default();
        for _ in 0..9 {
            p.ended(Some(1), YOUNG_DEATH, false, 0.5);
        }
        p.replaced();
        assert_eq!(p.ended(Some(1), YOUNG_DEATH, false, 0.5), Next::Now);
    }

    #[test]
    fn waits_are_spread() {
        let wait = |chance| {
            let mut p = Policy::default();
            p.ended(Some(1), YOUNG_DEATH, false, chance);
            p.ended(Some(1), YOUNG_DEATH, false, chance)
        };
        assert_eq!(wait(0.0), Next::After(Duration::from_millis(500)));
        assert_eq!(wait(1.0), Next::After(Duration::from_secs(1)));
    }
}
