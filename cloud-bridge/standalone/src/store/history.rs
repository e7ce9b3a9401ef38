//! The last changes, for watches: a ring bounded by count and by bytes. Whoever asks for more
//! than it holds is told that its version is too old and lists again.

use super::{Key, Packed};
use crate::error::ApiError;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One committed change; `object.rev` is its revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    pub key: Key,
    /// The object after the change, or its last state.
    pub object: Arc<Packed>,
    pub before: Option<Arc<Packed>>,
}

const MOST_EVENTS: usize = 4096;
/// Of the text of objects that may live on here alone.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How many events one call returns: a watch that is far behind takes several.
const BATCH: usize = 256;

pub(super) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    /// Everything after this revision is here.
    since: u64,
    reached: u64,
}

impl History {
    pub fn starting_at(revision: u64) -> History {
        History {
            events: VecDeque::new(),
            bytes: 0,
            since: revision,
            reached: revision,
        }
    }

    pub fn push(&mut self, event: Event) {
        self.reached = event.object.rev;
        self.bytes += event.object.json().len();
        self.events.push_back(event);
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.object.json().len();
            self.since = oldest.object.rev;
        }
    }

    /// Revisions up to here were given out; those without an event were undone.
    pub fn reached(&mut self, revision: u64) {
        self.reached = self.reached.max(revision);
    }

    pub fn after(&self, kind: Option<&str>, after: u64) -> Result<(Vec<Event>, u64), ApiError> {
        // A revision from the future was given by a database that is gone: its holder has to
        // list again just as one that slept too long.
        if after < self.since || after > self.reached {
            return Err(ApiError::expired(after, self.since));
        }
        let start = self.events.partition_point(|e| e.object.rev <= after);
        let mut found = Vec::new();
        for event in self.events.range(start..) {
            if kind.is_none_or(|kind| kind == &*event.key.kind) {
                found.push(event.clone());
                if found.len() == BATCH {
                    return Ok((found, event.object.rev));
                }
            }
        }
        Ok((found, self.reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(of: &str, rev: u64) -> Event {
        Event {
            kind: EventKind::Added,
            key: Key::new(&of.into(), "", "a"),
            object: Arc::new(Packed::new(rev, &json!({}))),
            before: None,
        }
    }

    #[test]
    fn events_of_one_kind_come_in_order_and_say_how_far_they_reach() {
        let mut history = History::starting_at(10);
        for (of, rev) in [("/pods", 11), ("/nodes", 12), ("/pods", 13), ("/nodes", 14)] {
            history.push(event(of, rev));
        }
        let (found, reached) = history.after(Some("/pods"), 11).unwrap();
        assert_eq!(found.iter().map(|e| e.object.rev).collect::<Vec<_>>(), [13]);
        assert_eq!(reached, 14);
    }

    #[test]
    fn what_has_left_the_ring_or_never_was_is_expired() {
        let mut history = History::starting_at(0);
        for rev in 1..=(MOST_EVENTS as u64 + 5) {
            history.push(event("/pods", rev));
        }
        assert!(history.after(None, 4).is_err());
        assert!(history.after(None, 5).is_ok());
        assert!(history.after(None, MOST_EVENTS as u64 + 6).is_err());
    }

    #[test]
    fn large_objects_leave_early() {
        let mut history = History::starting_at(0);
        for rev in 1..=20 {
            let mut large = event("/pods", rev);
            let text = "x".repeat(MOST_BYTES / 10);
            large.object = Arc::new(Packed::new(rev, &json!({"x": text})));
            history.push(large);
        }
        assert!(history.bytes <= MOST_BYTES);
        assert!(history.after(None, 10).is_err());
        assert_eq!(history.after(None, 12).map(|(e, _)| e.len()), Ok(8));
    }

    #[test]
    fn a_watch_far_behind_takes_several_batches() {
        let mut history = History::starting_at(0);
        for rev in 1..=600 {
            history.push(event("/pods", rev));
        }
        let mut at = 0;
        let mut seen = 0;
        while at < 600 {
            let (found, reached) = history.after(Some("/pods"), at).unwrap();
            seen += found.len();
            at = reached;
        }
        assert_eq!(seen, 600);
    }
}
