//! Says once that the API is away, once that it is back, and now and then that it still is: dozens of tasks
//! notice each of these.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often an outage is mentioned again.
const REMIND: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Since {
    began: Instant,
    told: Instant,
}

/// Whether the API answers, as far as anybody here knows.
#[derive(Debug, Default)]
pub struct Away {
    since: Mutex<Option<Since>>,
}

impl Away {
    fn since(&self) -> MutexGuard<'_, Option<Since>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call got no answer.
    pub fn missed(&self, why: &str) {
        if let Some(line) = self.step(Instant::now(), Some(why)) {
            tracing::warn!("{line}");
        }
    }

    /// The API answered, whatever it said.
    pub fn answered(&self) {
        if let Some(line) = self.step(Instant::now(), None) {
            tracing::info!("{line}");
        }
    }

    /// What is to be said, if anything; `missed` is why there was no answer.
    fn step(&self, now: Instant, missed: Option<&str>) -> Option<String> {
        let mut since = self.since();
        match (since.as_mut(), missed) {
            (None, None) => None,
            (None, Some(why)) => {
                *since = Some(Since {
                    began: now,
                    told: now,
                });
                Some(format!(
                    "the Kubernetes API does not answer: {why}; trying until it does, nothing is deleted"
                ))
            }
            (Some(there), Some(why)) => {
                if now.duration_since(there.told) < REMIND {
                    return None;
                }
                there.told = now;
                let minutes = now.duration_since(there.began).as_secs() / 60;
                Some(format!(
                    "the Kubernetes API has not answered for {minutes} min: {why}"
                ))
            }
            (Some(there), None) => {
                let seconds = now.duration_since(there.began).as_secs_f64();
                *since = None;
                Some(format!(
                    "the Kubernetes API answers again, after {seconds:.1} s"
                ))
            }
        }
    }
}

/// Whether that error means that there was no answer at all, or none from the API itself.
pub fn no_answer(error: &kube::Error) -> bool {
    match error {
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        // Of a proxy before it.
        kube::Error::Api(status) => matches!(status.code, 502 | 504),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_when_it_ends_and_rarely_between() {
        let away = Away::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        for (second, missed, said) in [
            (0, None, None),
            (1, Some("refused"), Some("does not answer: refused")),
            (2, Some("refused"), None),
            (3, Some("timeout"), None),
            (
                602,
                Some("timeout"),
                Some("not answered for 10 min: timeout"),
            ),
            (603, Some("timeout"), None),
            (1203, Some("timeout"), Some("not answered for 20 min")),
            (1204, None, Some("answers again, after 1203.0 s")),
            (1205, None, None),
            (1206, Some("refused"), Some("does not answer: refused")),
        ] {
            let line = away.step(at(second), missed);
            match said {
                Some(said) => assert!(line.unwrap().contains(said), "{second}"),
                None => assert_eq!(line, None, "{second}"),
            }
        }
    }
}
