//! What waits for a reader in this process. Neither queue ever makes the connection wait, so that
//! acknowledgements of what the reader itself publishes always get through.

use crate::collection::Event;
use crate::error::{Error, Result};
use crate::ledger::Token;
use crate::message::Message;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A lock whose holder cannot leave it half changed: nothing inside panics between two writes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Item {
    Init,
    Done,
    Topic(String),
}

#[derive(Default)]
struct Newest {
    order: VecDeque<Item>,
    /// Newest payload (none = cleared) of each topic in `order`, and whether it was listed.
    latest: HashMap<String, (Option<Bytes>, bool)>,
    listing: bool,
    failed: Option<Error>,
    closed: bool,
}

/// Events of a collection, one per topic at most.
#[derive(Default)]
pub(crate) struct Coalesced {
    state: Mutex<Newest>,
    wake: Notify,
}

impl Coalesced {
    /// A listing begins: what waited is part of it.
    pub fn init(&self) {
        let mut s = lock(&self.state);
        s.order.clear();
        s.latest.clear();
        s.listing = true;
        s.order.push_back(Item::Init);
        drop(s);
        self.wake.notify_one();
    }

    /// The listing is complete.
    pub fn done(&self) {
        let mut s = lock(&self.state);
        s.listing = false;
        s.order.push_back(Item::Done);
        drop(s);
        self.wake.notify_one();
    }

    /// A topic has this payload now, or none.
    pub fn put(&self, topic: &str, payload: Option<Bytes>) {
        let mut s = lock(&self.state);
        let listing = s.listing;
        match s.latest.get_mut(topic) {
            // Keeps its place, and its being listed: whoever waits for InitDone must see it before.
            Some(slot) => slot.0 = payload,
            None => {
                s.latest.insert(topic.to_owned(), (payload, listing));
                s.order.push_back(Item::Topic(topic.to_owned()));
            }
        }
        drop(s);
        self.wake.notify_one();
    }

    pub fn fail(&self, error: Error) {
        lock(&self.state).failed = Some(error);
        self.wake.notify_one();
    }

    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_one();
    }

    pub async fn next(&self) -> Option<Result<Event>> {
        loop {
            {
                let mut s = lock(&self.state);
                if let Some(error) = s.failed.take() {
                    return Some(Err(error));
                }
                match s.order.pop_front() {
                    Some(Item::Init) => return Some(Ok(Event::Init)),
                    Some(Item::Done) => return Some(Ok(Event::InitDone)),
                    Some(Item::Topic(topic)) => match s.latest.remove(&topic) {
                        Some((Some(payload), true)) => {
                            return Some(Ok(Event::InitApply { topic, payload }));
                        }
                        Some((Some(payload), false)) => {
                            return Some(Ok(Event::Apply { topic, payload }));
                        }
                        _ => return Some(Ok(Event::Delete { topic })),
                    },
                    None if s.closed => return None,
                    None => {}
                }
            }
            self.wake.notified().await;
        }
    }
}

/// Messages that a stream holds before it stops acknowledging.
const STREAM_MESSAGES: usize = 1024;
/// Payload bytes that a stream holds before it stops acknowledging.
const STREAM_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Message, Option<Arc<Token>>)>,
    bytes: usize,
    dropped: u64,
    ready: bool,
    failed: Option<Error>,
    closed: bool,
}

/// Messages in the order they came. Once it is full, messages stay unacknowledged until they are
/// taken, so the broker holds the rest back; QoS 0 messages, which nobody can hold back, are
/// dropped and counted.
#[derive(Default)]
pub(crate) struct Fifo {
    state: Mutex<Waiting>,
    wake: Notify,
    ready: Notify,
}

impl Fifo {
    pub fn is_full(&self) -> bool {
        let s = lock(&self.state);
        s.messages.len() >= STREAM_MESSAGES || s.bytes >= STREAM_BYTES
    }

    /// Takes a message. `hold` makes the token that delays its acknowledgement until it is taken.
    pub fn push(&self, message: Message, hold: impl FnOnce() -> Option<Arc<Token>>) {
        let full = self.is_full();
        let mut s = lock(&self.state);
        if full && message.qos == 0 {
            s.dropped += 1;
            return;
        }
        let token = if full { hold() } else { None };
        s.bytes += message.payload.len();
        s.messages.push_back((message, token));
        drop(s);
        self.wake.notify_one();
    }

    /// Takes a message whose token goes to whoever takes it, however full it is: the broker sends
    /// no more than we allowed it before it is acknowledged.
    pub fn push_held(&self, message: Message, token: Option<Arc<Token>>) {
        let mut s = lock(&self.state);
        s.bytes += message.payload.len();
        s.messages.push_back((message, token));
        drop(s);
        self.wake.notify_one();
    }

    /// Forgets what was not taken: the broker sends it again.
    pub fn clear(&self) {
        let mut s = lock(&self.state);
        s.messages.clear();
        s.bytes = 0;
    }

    pub fn set_ready(&self) {
        lock(&self.state).ready = true;
        self.ready.notify_waiters();
    }

    pub fn set_lost(&self) {
        lock(&self.state).ready = false;
    }

    pub fn fail(&self, error: Error) {
        lock(&self.state).failed = Some(error);
        self.wake.notify_one();
        self.ready.notify_waiters();
    }

    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_one();
        self.ready.notify_waiters();
    }

    /// QoS 0 messages dropped so far.
    pub fn dropped(&self) -> u64 {
        lock(&self.state).dropped
    }

    /// Waits until the broker has granted the subscription.
    pub async fn granted(&self) -> Result<()> {
        loop {
            let changed = self.ready.notified();
            tokio::pin!(changed);
            // Registered before looking, or a change between the two would be missed.
            changed.as_mut().enable();
            {
                let mut s = lock(&self.state);
                if let Some(error) = s.failed.take() {
                    return Err(error);
                }
                if s.closed {
                    return Err(Error::Closed);
                }
                if s.ready {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    pub async fn next(&self) -> Option<Result<Message>> {
        let (message, _token) = match self.take().await? {
            Ok(taken) => taken,
            Err(e) => return Some(Err(e)),
        };
        Some(Ok(message))
    }

    pub async fn take(&self) -> Option<Result<(Message, Option<Arc<Token>>)>> {
        loop {
            {
                let mut s = lock(&self.state);
                if let Some(error) = s.failed.take() {
                    return Some(Err(error));
                }
                if let Some(taken) = s.messages.pop_front() {
                    s.bytes -= taken.0.payload.len();
                    return Some(Ok(taken));
                }
                if s.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn all(q: &Coalesced) -> Vec<Event> {
        let rt = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        q.close();
        rt.block_on(async {
            let mut out = vec![];
            while let Some(event) = q.next().await {
                out.push(event.unwrap());
            }
            out
        })
    }

    #[test]
    fn a_slow_reader_sees_the_newest_of_each_topic() {
        let q = Coalesced::default();
        q.init();
        q.put("a", payload("1"));
        q.done();
        q.put("b", payload("1"));
        q.put("b", payload("2"));
        q.put("c", payload("1"));
        q.put("c", None);
        q.put("a", payload("2"));
        let applied = |t: &str, p: &str| Event::Apply {
            topic: t.into(),
            payload: payload(p).unwrap(),
        };
        assert_eq!(
            all(&q),
            [
                Event::Init,
                Event::InitApply {
                    topic: "a".into(),
                    payload: payload("2").unwrap()
                },
                Event::InitDone,
                applied("b", "2"),
                Event::Delete { topic: "c".into() },
            ]
        );
    }

    #[test]
    fn a_new_listing_replaces_what_waited() {
        let q = Coalesced::default();
        q.init();
        q.put("a", payload("1"));
        q.init();
        q.done();
        assert_eq!(all(&q), [Event::Init, Event::InitDone]);
    }
}
