//! The lane of events: ordered, at least once, whatever is refused or lost on the way.
//!
//! The sender keeps a window of events in flight. When one is refused for now, it goes back to that one and
//! sends it and everything after it again under the same numbers; the receiver drops what overtook it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::lane::Used;
use crate::{Budget, Code, Frame, Hash, Kind, Put};

/// One event from the spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequenced {
    /// The spool's own number, returned when the event is settled.
    pub id: u64,
    pub topic: String,
    pub uid: String,
    pub body: Bytes,
}

#[derive(Debug)]
struct Slot {
    event: Sequenced,
    /// Given at the first sending on a connection and kept for every repetition on it.
    seq: Option<u64>,
    sent: bool,
}

/// Sending half. The caller feeds it from a spool of its own.
#[derive(Debug)]
pub struct EventSender {
    kind: Kind,
    budget: Budget,
    slots: VecDeque<Slot>,
    connected: bool,
    retry_at: Option<u64>,
    retry_delay: u64,
}

const FIRST_RETRY_MS: u64 = 200;
const LAST_RETRY_MS: u64 = 30_000;

impl EventSender {
    pub fn new(kind: Kind, budget: Budget) -> EventSender {
        EventSender {
            kind,
            budget,
            slots: VecDeque::new(),
            connected: false,
            retry_at: None,
            retry_delay: FIRST_RETRY_MS,
        }
    }

    /// How many more events it takes now.
    pub fn room(&self) -> usize {
        self.budget.frames.saturating_sub(self.slots.len())
    }

    /// The number after which the spool is to be read on.
    pub fn last_id(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.event.id)
    }

    /// Takes the next event of the spool; returns it when there is no room.
    pub fn push(&mut self, event: Sequenced) -> Result<(), Sequenced> {
        if self.room() == 0 {
            return Err(event);
        }
        self.slots.push_back(Slot {
            event,
            seq: None,
            sent: false,
        });
        Ok(())
    }

    /// The spool dropped everything up to and including this number.
    pub fn dropped_up_to(&mut self, id: u64) {
        self.slots.retain(|slot| slot.sent || slot.event.id > id);
    }

    pub fn connected(&mut self) {
        self.disconnected();
        self.connected = true;
    }

    pub fn disconnected(&mut self) {
        self.connected = false;
        self.retry_at = None;
        self.retry_delay = FIRST_RETRY_MS;
        for slot in &mut self.slots {
            slot.seq = None;
            slot.sent = false;
        }
    }

    pub fn is_settled(&self) -> bool {
        self.slots.is_empty()
    }

    /// The event's spool number, once the other end has it for good.
    pub fn on_ack(&mut self, seq: u64) -> Option<u64> {
        let at = self.slots.iter().position(|slot| slot.seq == Some(seq))?;
        self.retry_delay = FIRST_RETRY_MS;
        self.slots.remove(at).map(|slot| slot.event.id)
    }

    /// A permanent refusal settles the event like an acknowledgement; a transient one goes back to it.
    pub fn on_nack(&mut self, seq: u64, permanent: bool, now_ms: u64) -> Option<u64> {
        if permanent {
            return self.on_ack(seq);
        }
        let at = self.slots.iter().position(|slot| slot.seq == Some(seq))?;
        for slot in self.slots.iter_mut().skip(at) {
            slot.sent = false;
        }
        self.retry_at = Some(now_ms.saturating_add(self.retry_delay));
        self.retry_delay = (self.retry_delay * 2).min(LAST_RETRY_MS);
        None
    }

    /// Whether a number belongs to this lane.
    pub fn knows(&self, seq: u64) -> bool {
        self.slots.iter().any(|slot| slot.seq == Some(seq))
    }

    pub fn poll(&mut self, now_ms: u64, next_seq: &mut u64) -> Option<Frame> {
        if !self.connected {
            return None;
        }
        self.wake(now_ms);
        if self.retry_at.is_some() {
            return None;
        }
        let mut used = Used::default();
        for slot in self.slots.iter().filter(|slot| slot.sent) {
            used.take(slot.event.body.len());
        }
        let slot = self.slots.iter_mut().find(|slot| !slot.sent)?;
        if !used.fits(self.budget, slot.event.body.len()) {
            return None;
        }
        let seq = *slot.seq.get_or_insert_with(|| {
            *next_seq += 1;
            *next_seq
        });
        slot.sent = true;
        let event = slot.event.clone();
        Some(Frame::Put(Put {
            seq,
            kind: self.kind.clone(),
            topic: event.topic,
            uid: event.uid,
            hash: Hash::UNKNOWN,
            body: event.body,
        }))
    }

    /// Ends the pause after a refusal when its time has come.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        self.retry_at.take_if(|at| *at <= now_ms);
    }

    pub fn next_wake(&self) -> Option<u64> {
        self.retry_at.filter(|_| self.connected)
    }
}

/// What a well-behaved sender never exceeds.
const INBOX_MAX: usize = 1024;

/// Receiving half: hands out one event at a time.
#[derive(Debug, Default)]
pub(crate) struct EventInbox {
    waiting: VecDeque<Put>,
    applying: Option<u64>,
    /// The refused event; until it comes again, everything else overtook it.
    blocked_on: Option<u64>,
}

impl EventInbox {
    /// The event to apply now, if any.
    pub fn on_put(&mut self, put: Put) -> Result<Option<Put>, String> {
        match self.blocked_on {
            Some(seq) if seq != put.seq => return Ok(None),
            _ => self.blocked_on = None,
        }
        if self.applying.is_some() {
            if self.waiting.len() >= INBOX_MAX {
                return Err(format!(
                    "more than {INBOX_MAX} events without an acknowledgement"
                ));
            }
            self.waiting.push_back(put);
            return Ok(None);
        }
        self.applying = Some(put.seq);
        Ok(Some(put))
    }

    pub fn done(&mut self) -> Option<Put> {
        let next = self.waiting.pop_front();
        self.applying = next.as_ref().map(|put| put.seq);
        next
    }

    pub fn refused(&mut self) {
        self.blocked_on = self.applying.take();
        self.waiting.clear();
    }
}

/// Codes that say "never", for callers that translate an API answer.
impl Code {
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Code::INVALID | Code::NOT_FOUND | Code::CONFLICT | Code::GONE
        ) || matches!(self, Code::TOO_LARGE | Code::UNPROCESSABLE)
    }
}
