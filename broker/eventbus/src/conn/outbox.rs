//! What waits for one client, in order: messages, and replays of retained messages with live ones
//! queued behind them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::Cursor;
use crate::message::{Message, Outgoing};

/// A replay in progress: pages from the store, one at a time.
pub struct Replay {
    pub filter: Arc<str>,
    pub cursor: Cursor,
    pub page: VecDeque<Arc<Message>>,
}

/// One thing in the queue.
pub enum Entry {
    Out(Outgoing),
    Replay(Replay),
}

/// The queue, with what it weighs.
pub struct Outbox {
    entries: VecDeque<Entry>,
    messages: usize,
    bytes: usize,
    /// For persistent sessions: the last of the session's queue that is in here or was.
    pub cursor: u64,
    /// For persistent sessions: there is more on disk than in here.
    pub behind: bool,
}

impl Outbox {
    /// An empty one. A persistent session begins behind: what waits is on disk.
    pub fn new(persistent: bool) -> Self {
        Self {
            entries: VecDeque::new(),
            messages: 0,
            bytes: 0,
            cursor: 0,
            behind: persistent,
        }
    }

    pub fn front(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut()
    }

    pub fn push(&mut self, out: Outgoing) {
        self.messages += 1;
        self.bytes += out.weight();
        self.entries.push_back(Entry::Out(out));
    }

    pub fn push_replay(&mut self, filter: Arc<str>) {
        self.entries.push_back(Entry::Replay(Replay {
            filter,
            cursor: Cursor::Disk(None),
            page: VecDeque::new(),
        }));
    }

    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front();
        if let Some(Entry::Out(out)) = &entry {
            self.messages -= 1;
            self.bytes -= out.weight();
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
        entry
    }

    /// Ends the replay of a filter that is subscribed no more, or anew.
    pub fn cancel_replay(&mut self, filter: &str) {
        self.entries
            .retain(|e| !matches!(e, Entry::Replay(r) if &*r.filter == filter));
    }

    /// Whether a message fits within these bounds; the first always does.
    pub fn has_room(&self, messages: usize, bytes: usize, weight: usize) -> bool {
        self.messages == 0 || (self.messages < messages && self.bytes + weight <= bytes)
    }
}
