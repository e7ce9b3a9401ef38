//! Which incoming messages may be acknowledged: in the order they came (MQTT-4.6.0-2), each once
//! whoever took it is done with it, and never on another connection than its own.

use crate::queue::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

#[derive(Default)]
struct Open {
    /// Counts connections: a packet id means nothing on the next one.
    connection: u64,
    /// Number of the first entry of `slots` since the connection began.
    first: u64,
    slots: VecDeque<(u16, bool)>,
}

/// The messages of one connection that are not acknowledged yet.
pub(crate) struct Ledger {
    open: Mutex<Open>,
    wake: Arc<Notify>,
}

impl Ledger {
    /// `wake` is notified when [`due`](Self::due) may have something.
    pub fn new(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            wake,
        })
    }

    /// A new connection: the broker will send again what was not acknowledged.
    pub fn reset(&self) {
        let mut open = lock(&self.open);
        open.connection += 1;
        open.first = 0;
        open.slots.clear();
    }

    /// A message came; the token is what acknowledges it, by itself when dropped if `on_drop`.
    pub fn enter(self: &Arc<Self>, pkid: u16, on_drop: bool) -> Token {
        let mut open = lock(&self.open);
        open.slots.push_back((pkid, false));
        Token {
            connection: open.connection,
            number: open.first + open.slots.len() as u64 - 1,
            on_drop,
            ledger: self.clone(),
        }
    }

    /// Packet ids to acknowledge now.
    pub fn due(&self) -> Vec<u16> {
        let mut open = lock(&self.open);
        let n = open.slots.iter().take_while(|(_, done)| *done).count();
        open.first += n as u64;
        open.slots.drain(..n).map(|(pkid, _)| pkid).collect()
    }

    fn done(&self, connection: u64, number: u64) {
        let mut open = lock(&self.open);
        if open.connection == connection
            && let Some(at) = number.checked_sub(open.first)
            && let Some(slot) = open.slots.get_mut(at as usize)
        {
            slot.1 = true;
        }
        drop(open);
        self.wake.notify_one();
    }
}

/// The right to acknowledge one message.
pub(crate) struct Token {
    connection: u64,
    number: u64,
    on_drop: bool,
    ledger: Arc<Ledger>,
}

impl Token {
    pub fn done(&self) {
        self.ledger.done(self.connection, self.number);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.on_drop {
            self.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_arrival() {
        let l = Ledger::new(Arc::default());
        let (a, b, c) = (l.enter(7, false), l.enter(8, false), l.enter(9, false));
        b.done();
        assert!(l.due().is_empty());
        a.done();
        assert_eq!(l.due(), [7, 8]);
        b.done();
        c.done();
        assert_eq!(l.due(), [9]);
    }

    #[test]
    fn a_token_of_an_earlier_connection_acknowledges_nothing() {
        let l = Ledger::new(Arc::default());
        let old = l.enter(7, true);
        l.reset();
        let new = l.enter(7, false);
        drop(old);
        assert!(l.due().is_empty());
        new.done();
        assert_eq!(l.due(), [7]);
    }
}
