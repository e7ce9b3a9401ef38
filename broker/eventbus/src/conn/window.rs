//! QoS 1 messages on their way to one client: which packet id each has, and how many may be.

use std::collections::BTreeMap;

use crate::message::Outgoing;
use crate::registry::InFlight;

/// Unacknowledged messages by packet id.
pub struct Window {
    max: usize,
    sent: BTreeMap<u16, Sent>,
    last_id: u16,
    /// Ids that a session's last connection used, for its redelivery.
    resumed: InFlight,
}

/// What is remembered of a message until it is acknowledged.
pub struct Sent {
    /// Its place in the session's queue; 0 = none.
    pub q: u64,
    /// Retained messages that belong to the replay of a subscription.
    pub replay: bool,
}

impl Window {
    /// For a client that takes `max` at a time.
    pub fn new(max: u16, resumed: InFlight) -> Self {
        Self {
            max: max.max(1).into(),
            sent: BTreeMap::new(),
            last_id: 0,
            resumed,
        }
    }

    /// Whether another message may be sent.
    pub fn has_room(&self) -> bool {
        self.sent.len() < self.max
    }

    /// Takes a packet id for a message, the same as before if it was sent to this session
    /// before; then also marks it as a duplicate.
    pub fn send(&mut self, outgoing: &mut Outgoing, replay: bool) -> u16 {
        let sent = Sent {
            q: outgoing.q,
            replay,
        };
        let old = (outgoing.q != 0)
            .then(|| self.resumed.remove(&outgoing.q))
            .flatten();
        let id = match old {
            Some(id) if !self.sent.contains_key(&id) => {
                outgoing.dup = true;
                id
            }
            _ => self.free_id(),
        };
        self.sent.insert(id, sent);
        id
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let used = self.sent.contains_key(&self.last_id)
                || self.resumed.values().any(|id| *id == self.last_id);
            if !used {
                return self.last_id;
            }
        }
    }

    /// The client has taken it, now or on the session's last connection; `None` if nothing has
    /// this id.
    pub fn acknowledged(&mut self, id: u16) -> Option<Sent> {
        if let Some(sent) = self.sent.remove(&id) {
            return Some(sent);
        }
        let (q, _) = self.resumed.iter().find(|(_, old)| **old == id)?;
        let (q, replay) = (*q, false);
        self.resumed.remove(&q);
        Some(Sent { q, replay })
    }

    /// Whether retained messages of a replay are still on their way.
    pub fn replaying(&self) -> bool {
        self.sent.values().any(|s| s.replay)
    }

    /// What the session's next connection continues with.
    pub fn into_in_flight(self) -> InFlight {
        let mut left = self.resumed;
        left.extend(
            self.sent
                .into_iter()
                .filter(|(_, s)| s.q != 0)
                .map(|(id, s)| (s.q, id)),
        );
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;
    use crate::message::Message;
    use std::sync::Arc;

    fn out(q: u64) -> Outgoing {
        Outgoing {
            message: Arc::new(Message::new("t", "x")),
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: vec![],
            q,
            dup: false,
        }
    }

    #[test]
    fn a_redelivered_message_keeps_its_id_and_says_dup() {
        let mut w = Window::new(2, InFlight::new());
        assert_eq!(w.send(&mut out(1), false), 1);
        assert_eq!(w.send(&mut out(2), false), 2);
        assert!(!w.has_room());
        assert_eq!(w.acknowledged(1).unwrap().q, 1);
        let mut next = Window::new(2, w.into_in_flight());
        let mut again = out(2);
        assert_eq!(next.send(&mut again, false), 2);
        assert!(again.dup);
        let mut new = out(3);
        assert_eq!(next.send(&mut new, false), 1);
        assert!(!new.dup);
    }

    #[test]
    fn ids_wrap_without_zero_and_without_repeating() {
        let mut w = Window::new(u16::MAX, InFlight::new());
        w.last_id = u16::MAX - 1;
        assert_eq!(w.send(&mut out(0), false), u16::MAX);
        assert_eq!(w.send(&mut out(0), false), 1);
    }
}
