//! Outgoing messages between the call that wants them published and the broker's acknowledgement.
//! Pure: the session writes what [`Flight::next`] gives and feeds back what it reads.
//!
//! Why not rumqttc's own tracking: after a reconnect without a session its event loop forgets all
//! that was unacknowledged, PUBACKs out of order can leave it waiting for ever (its `collision`
//! outlives the connection), and it reserves a slot for each of 65,535 packet ids.

use crate::error::{Code, Error, Result};
use crate::message::Message;
use std::collections::{HashSet, VecDeque};
use tokio::sync::oneshot;

/// Who waits for the acknowledgement, if anybody.
pub(crate) type Done = Option<oneshot::Sender<Result<()>>>;

struct Out {
    message: Message,
    done: Done,
}

/// Messages waiting to be sent, and messages sent.
pub(crate) struct Flight {
    queue: VecDeque<Out>,
    sent: VecDeque<(u16, Out)>,
    /// Packet ids of SUBSCRIBE and UNSUBSCRIBE under way: same number space (MQTT-2.2.1-4).
    others: HashSet<u16>,
    last_pkid: u16,
    window: usize,
}

/// How many unacknowledged messages we allow ourselves, whatever the broker allows.
const WINDOW: usize = 256;

impl Flight {
    pub fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            others: HashSet::new(),
            last_pkid: 0,
            window: WINDOW,
        }
    }

    /// A connection is up; the broker takes `receive_max` messages at a time.
    pub fn connected(&mut self, receive_max: u16) {
        self.window = WINDOW.min(receive_max.max(1).into());
    }

    /// The connection is lost: what was not acknowledged is sent again, in its order, before
    /// anything newer.
    pub fn lost(&mut self) {
        for (_, out) in self.sent.drain(..).rev() {
            self.queue.push_front(out);
        }
        self.others.clear();
    }

    pub fn push(&mut self, message: Message, done: Done) {
        self.queue.push_back(Out { message, done });
    }

    /// Said again at connect, before anything that waits.
    pub fn push_first(&mut self, message: Message) {
        self.queue.push_front(Out {
            message,
            done: None,
        });
    }

    /// Messages neither acknowledged nor refused.
    pub fn len(&self) -> usize {
        self.queue.len() + self.sent.len()
    }

    /// Messages not sent yet.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// A packet id that nothing under way uses.
    pub fn pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
            let id = self.last_pkid;
            if !self.others.contains(&id) && !self.sent.iter().any(|(p, _)| *p == id) {
                return id;
            }
        }
    }

    /// A packet id for a SUBSCRIBE or UNSUBSCRIBE.
    pub fn other_pkid(&mut self) -> u16 {
        let id = self.pkid();
        self.others.insert(id);
        id
    }

    pub fn other_done(&mut self, pkid: u16) {
        self.others.remove(&pkid);
    }

    /// The next message to write, with its packet id (0 for QoS 0), if the window allows one.
    pub fn next(&mut self) -> Option<(u16, Message)> {
        if self.sent.len() >= self.window {
            return None;
        }
        let out = self.queue.pop_front()?;
        let message = out.message.clone();
        if message.qos == 0 {
            finish(out.done, Ok(()));
            return Some((0, message));
        }
        let pkid = self.pkid();
        self.sent.push_back((pkid, out));
        Some((pkid, message))
    }

    /// The broker has acknowledged or refused it. Gives the topic of a refused message.
    pub fn acked(&mut self, pkid: u16, refusal: Option<(Code, Option<String>)>) -> Option<Message> {
        let Some(at) = self.sent.iter().position(|(p, _)| *p == pkid) else {
            self.others.remove(&pkid);
            return None;
        };
        let (_, out) = self.sent.remove(at)?;
        match refusal {
            None => {
                if out.message.retain {
                    self.supersede(at, &out.message.topic);
                }
                finish(out.done, Ok(()));
                None
            }
            Some((code, reason)) => {
                let topic = out.message.topic.clone();
                if out.done.is_none() {
                    tracing::warn!(topic, %code, reason, "the broker refused a message");
                }
                finish(
                    out.done,
                    Err(Error::Refused {
                        topic,
                        code,
                        reason,
                    }),
                );
                Some(out.message)
            }
        }
    }

    /// Newer state of `topic` is acknowledged: what was sent before it must not be sent again
    /// after it, or it would bring the old state back.
    fn supersede(&mut self, before: usize, topic: &str) {
        let mut at = 0;
        for _ in 0..before {
            let older = &self.sent[at].1.message;
            if older.retain && older.topic == topic {
                if let Some((pkid, out)) = self.sent.remove(at) {
                    // Its own acknowledgement may still come, so the number stays taken.
                    self.others.insert(pkid);
                    finish(out.done, Ok(()));
                }
            } else {
                at += 1;
            }
        }
    }

    /// Nothing more will be sent.
    pub fn close(&mut self) {
        for (_, out) in self.sent.drain(..) {
            finish(out.done, Err(Error::Closed));
        }
        for out in self.queue.drain(..) {
            finish(out.done, Err(Error::Closed));
        }
    }
}

fn finish(done: Done, result: Result<()>) {
    if let Some(done) = done {
        // Whoever asked may have given up waiting; the message was sent all the same.
        drop(done.send(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(n: u32, qos: u8) -> Message {
        Message {
            topic: format!("app/{n}"),
            payload: bytes::Bytes::new(),
            retain: false,
            qos,
        }
    }

    fn topics(f: &mut Flight) -> Vec<String> {
        std::iter::from_fn(|| f.next())
            .map(|(_, m)| m.topic)
            .collect()
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_first_and_in_order() {
        let mut f = Flight::new();
        f.connected(2);
        for n in 1..=4 {
            f.push(m(n, 1), None);
        }
        assert_eq!(topics(&mut f), ["app/1", "app/2"]);
        f.acked(2, None);
        assert_eq!(topics(&mut f), ["app/3"]);
        f.lost();
        f.connected(100);
        assert_eq!(topics(&mut f), ["app/1", "app/3", "app/4"]);
    }

    #[test]
    fn old_state_is_not_sent_again_once_newer_is_acknowledged() {
        let mut f = Flight::new();
        let state = |payload: &'static str| Message {
            payload: bytes::Bytes::from_static(payload.as_bytes()),
            retain: true,
            ..m(1, 1)
        };
        let (tx, mut rx) = oneshot::channel();
        f.push(state("old"), Some(tx));
        f.push(m(2, 1), None);
        f.push(state("new"), None);
        let ids: Vec<_> = std::iter::from_fn(|| f.next()).map(|(p, _)| p).collect();
        f.acked(ids[2], None);
        assert!(rx.try_recv().unwrap().is_ok());
        assert!(f.acked(ids[0], None).is_none());
        f.lost();
        assert_eq!(topics(&mut f), ["app/2"]);
    }

    #[test]
    fn a_refusal_reaches_who_asked() {
        let mut f = Flight::new();
        let (tx, mut rx) = oneshot::channel();
        f.push(m(1, 1), Some(tx));
        let (pkid, _) = f.next().unwrap();
        f.acked(pkid, Some((Code::QuotaExceeded, Some("full".into()))));
        let error = rx.try_recv().unwrap().unwrap_err();
        assert!(error.can_retry());
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(f.len(), 0);
    }

    #[test]
    fn qos_0_is_done_when_written_and_an_unknown_acknowledgement_is_nothing() {
        let mut f = Flight::new();
        let (tx, mut rx) = oneshot::channel();
        f.push(m(1, 0), Some(tx));
        assert_eq!(f.next().unwrap().0, 0);
        assert!(rx.try_recv().unwrap().is_ok());
        assert!(f.acked(9, None).is_none());
    }

    #[test]
    fn packet_ids_under_way_are_not_used_twice() {
        let mut f = Flight::new();
        let sub = f.other_pkid();
        f.last_pkid = sub - 1;
        assert_ne!(f.pkid(), sub);
        f.last_pkid = u16::MAX;
        assert_ne!(f.pkid(), 0);
    }
}
