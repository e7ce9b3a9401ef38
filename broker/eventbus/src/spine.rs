//! The order of a publish, in one place: what is committed or needs no commit comes here, gets
//! its place in memory if it is retained there, is routed, and only then acknowledged. One task,
//! so that everybody sees one order, which for durable topics is that of the commits.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::codec::topic;
use crate::counters::Counters;
use crate::message::{MEMORY, Message, Outgoing, weight};
use crate::router::Router;
use crate::store::{Hit, Page, Refused, Reply, name_of};

/// Bounds of a page of memory's retained messages.
const PAGE_MESSAGES: usize = 64;
const PAGE_BYTES: usize = 256 * 1024;
/// Retained bytes in memory of one name.
const SHARE_BYTES: usize = 8 * 1024 * 1024;
/// Messages on their way to one connected persistent session; beyond it, it reads from disk.
const MAIL: usize = 64;

/// What the spine takes.
pub enum Routed {
    /// From the store, in commit order.
    Committed {
        message: Message,
        memory: bool,
        mails: Vec<(Hit, u64)>,
        reply: Option<Reply>,
    },
    /// From a connection: nothing of it is stored on disk.
    Passing {
        message: Message,
        memory: bool,
        reply: Option<Reply>,
    },
    /// Answered when everything before has been handed to the router.
    Fence(oneshot::Sender<()>),
}

/// Retained messages of topics whose durability is `none`.
#[derive(Default)]
pub struct Memory {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The last number given out.
    n: u64,
    topics: BTreeMap<Arc<str>, Arc<Message>>,
    shares: HashMap<Arc<str>, usize>,
}

impl Memory {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last commit in memory.
    pub fn watermark(&self) -> u64 {
        MEMORY | self.held().n
    }

    /// Stamps and keeps a message, or clears its topic if it is empty.
    fn keep(&self, mut message: Message) -> Result<Arc<Message>, Refused> {
        let mut held = self.held();
        let name: Arc<str> = name_of(&message.publisher).into();
        let old = held
            .topics
            .get(&message.topic)
            .map(|m| (share_of(m), weight(m)));
        let share = held.shares.get(&name).copied().unwrap_or(0);
        let gone = old
            .as_ref()
            .map_or(0, |(n, size)| if *n == name { *size } else { 0 });
        let size = weight(&message);
        if !message.payload.is_empty() && share + size > SHARE_BYTES + gone {
            return Err(Refused::MemoryQuota(name, SHARE_BYTES));
        }
        if let Some((owner, size)) = old
            && let Some(share) = held.shares.get_mut(&owner)
        {
            *share = share.saturating_sub(size);
        }
        held.n += 1;
        message.commit = MEMORY | held.n;
        let message = Arc::new(message);
        if message.payload.is_empty() {
            held.topics.remove(&message.topic);
        } else {
            *held.shares.entry(name).or_default() += size;
            held.topics.insert(message.topic.clone(), message.clone());
        }
        Ok(message)
    }

    /// The next page of matches after a topic.
    pub fn page(&self, filter: &str, after: Option<&str>) -> Page {
        let held = self.held();
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(crate::store::literal_prefix(filter)),
        };
        let prefix = crate::store::literal_prefix(filter);
        let range = held.topics.range::<str, _>((from, Bound::Unbounded));
        let (mut page, mut bytes) = (Page::default(), 0);
        for (name, message) in range.take_while(|(name, _)| name.starts_with(prefix)) {
            if !topic::matches(filter, name) {
                continue;
            }
            bytes += weight(message);
            page.messages.push(message.clone());
            if page.messages.len() >= PAGE_MESSAGES || bytes >= PAGE_BYTES {
                page.next = Some(name.clone());
                break;
            }
        }
        page
    }

    /// Topics that match.
    pub fn topics(&self, filter: &str) -> Vec<Arc<str>> {
        let held = self.held();
        let matching = held.topics.keys().filter(|t| topic::matches(filter, t));
        matching.cloned().collect()
    }
}

fn share_of(message: &Message) -> Arc<str> {
    name_of(&message.publisher).into()
}

/// The way to one connected persistent session.
#[derive(Clone)]
pub struct Mailbox {
    queue: mpsc::Sender<Outgoing>,
    /// Something did not fit: the rest is on disk.
    missed: Arc<Notify>,
}

/// The connection's end of a [`Mailbox`].
pub struct Mail {
    pub queue: mpsc::Receiver<Outgoing>,
    pub missed: Arc<Notify>,
}

/// Mailboxes by session.
#[derive(Default)]
pub struct Mailboxes(Mutex<HashMap<u64, Mailbox>>);

impl Mailboxes {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the mailbox of a session that has just connected.
    pub fn open(&self, session: u64) -> Mail {
        let (sender, queue) = mpsc::channel(MAIL);
        let missed = Arc::new(Notify::new());
        let mailbox = Mailbox {
            queue: sender,
            missed: missed.clone(),
        };
        self.all().insert(session, mailbox);
        Mail { queue, missed }
    }

    /// Closes it.
    pub fn close(&self, session: u64) {
        self.all().remove(&session);
    }

    fn deliver(&self, message: &Arc<Message>, mails: Vec<(Hit, u64)>, counters: &Counters) {
        if mails.is_empty() {
            return;
        }
        let all = self.all();
        for (hit, q) in mails {
            let Some(mailbox) = all.get(&hit.session) else {
                continue;
            };
            let outgoing = Outgoing {
                message: message.clone(),
                qos: hit.qos,
                retain: hit.retain,
                ids: hit.ids,
                q,
                dup: false,
            };
            if mailbox.queue.try_send(outgoing).is_err() {
                if q == 0 {
                    counters.dropped.up();
                } else {
                    mailbox.missed.notify_one();
                }
            }
        }
    }
}

/// What the spine works on.
pub struct Spine {
    pub router: Router,
    pub memory: Arc<Memory>,
    pub mailboxes: Arc<Mailboxes>,
    pub counters: Arc<Counters>,
}

impl Spine {
    /// Runs until all senders are gone.
    pub async fn run(self, mut inbox: mpsc::Receiver<Routed>) {
        while let Some(routed) = inbox.recv().await {
            let (message, memory, mails, reply) = match routed {
                Routed::Committed {
                    message,
                    memory,
                    mails,
                    reply,
                } => (message, memory, mails, reply),
                Routed::Passing {
                    message,
                    memory,
                    reply,
                } => (message, memory, Vec::new(), reply),
                Routed::Fence(reply) => {
                    reply.send(()).ok();
                    continue;
                }
            };
            let result = self.route(message, memory, mails).await;
            if let Some(reply) = reply {
                // The publisher may be gone; its message is not.
                drop(reply.send(result));
            }
        }
    }

    async fn route(
        &self,
        message: Message,
        memory: bool,
        mails: Vec<(Hit, u64)>,
    ) -> Result<(), Refused> {
        let message = if memory {
            self.memory.keep(message)?
        } else {
            Arc::new(message)
        };
        self.mailboxes.deliver(&message, mails, &self.counters);
        self.router
            .publish(message)
            .await
            .map(drop)
            .map_err(|error| {
                tracing::warn!(%error, "a message was not routed");
                Refused::Stopped
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> Message {
        let mut m = Message::new(topic, payload.to_vec());
        m.publisher = "modbus/modbus".into();
        m.retain = true;
        m
    }

    #[test]
    fn memory_pages_in_order_and_forgets_what_is_cleared() {
        let memory = Memory::default();
        for i in 0..100 {
            memory.keep(message(&format!("a/{i:03}"), b"x")).unwrap();
        }
        memory.keep(message("a/050", b"")).unwrap();
        let first = memory.page("a/+", None);
        assert_eq!(first.messages.len(), 64);
        let second = memory.page("a/+", first.next.as_deref());
        assert_eq!(second.messages.len(), 35);
        assert_eq!(second.next, None);
        assert_eq!(memory.watermark(), MEMORY | 101);
    }

    #[test]
    fn a_name_cannot_take_more_than_its_share_of_memory() {
        let memory = Memory::default();
        let big = vec![0; SHARE_BYTES / 2];
        memory.keep(message("a", &big)).unwrap();
        memory.keep(message("a", &big)).unwrap();
        let refused = memory.keep(message("b", &big)).unwrap_err();
        assert!(refused.to_string().contains("modbus"), "{refused}");
        memory.keep(message("a", b"")).unwrap();
        memory.keep(message("b", &big)).unwrap();
    }
}
