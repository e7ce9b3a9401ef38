//! Which live links get a message: rumqttd's Router behind a seam that outlives it.
//!
//! ```text
//!  publish, subscribe ──► commands ──► pump ──► engine ──► rumqttd's Router (a thread)
//!                                       │  ◄── hits: (seq, filter) … fence
//!                                       └──► table: filter → links ──► each link's queue
//! ```
//!
//! One rumqttd link serves everybody. The pump hands it a batch of references (sequence
//! numbers) followed by a fence on a private topic, and collects which filters matched which
//! sequence until the fence comes back. Then it walks the batch in order and puts each message
//! into the queues of the links that hold a matching filter. So
//!
//! - rumqttd matches each message once per *filter* and never holds more than one batch: no
//!   reader of it can fall behind, whatever a client does;
//! - a link costs a queue and a table entry, not rumqttd's buffers of about 130 KB;
//! - everybody sees one order, also across filters;
//! - a batch whose fence does not come back (the thread panicked or hangs) is injected whole
//!   into a new Router before anything of it was delivered: nothing is lost and nothing comes
//!   twice. If that fails again the pump matches the batch by itself.
//!
//! A batch of few messages and filters may be matched in place ([`Limits::direct`]).
//!
//! rumqttd keeps a log per filter and a cache entry per topic for ever, so the engine is
//! replaced between two batches when its [`Limits`] are passed.

mod engine;
mod limits;
mod link;
mod message;
mod pump;
mod table;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::codec::topic;
pub use limits::Limits;
pub use link::{Link, LinkId, OnFull, Queue};
pub use message::{Delivery, Matched, Message};
use pump::{Command, Counters, Pump};

/// How a router is set up; the default suits a gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// Publishes and subscriptions waiting for the pump; publishers wait when it is full.
    pub commands: usize,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commands: 1024,
            limits: Limits::default(),
        }
    }
}

/// Why the router refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    #[error("the router has stopped")]
    Stopped,
    #[error("link {0:?} is not registered, or was closed because its queue was full")]
    UnknownLink(LinkId),
    #[error("{0:?} is not a plain topic filter")]
    Filter(String),
    #[error("{0:?} is not a topic name")]
    Topic(String),
}

/// What the router has done since it started, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub published: u64,
    pub delivered: u64,
    /// Messages dropped because a link's queue was full.
    pub dropped: u64,
    /// Links closed because their queue was full.
    pub closed: u64,
    /// Engines that ended or hung, and were replaced.
    pub deaths: u64,
    /// Engines replaced because a limit was passed.
    pub replaced: u64,
    /// Batches matched without the engine.
    pub unaided: u64,
    /// Matches that came after the fence of their batch and were lost: always 0, unless
    /// rumqttd's order is not what the engine relies on.
    pub late: u64,
    pub links: u64,
    pub filters: u64,
    /// Estimated bytes that the engine keeps in logs and caches.
    pub engine_bytes: u64,
}

/// Handle to the router; clones share it. It stops when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Router {
    commands: mpsc::Sender<Command>,
    /// Held while a sequence is taken and its message queued, so that both have one order.
    seq: Arc<Mutex<u64>>,
    counters: Arc<Counters>,
}

impl Router {
    /// Starts the pump on the current tokio runtime.
    pub fn start(config: Config) -> Self {
        let (commands, inbox) = mpsc::channel(config.commands.max(1));
        let counters = Arc::new(Counters::default());
        tokio::spawn(Pump::new(inbox, counters.clone(), config.limits).run());
        Self {
            commands,
            seq: Arc::default(),
            counters,
        }
    }

    /// Registers a live connection.
    pub async fn link(&self, queue: Queue) -> Result<Link, RouterError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Link { queue, reply }, answer).await
    }

    /// Forgets a link. When this returns, nothing more enters its queue.
    pub async fn unlink(&self, link: LinkId) -> Result<(), RouterError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Unlink { link, reply }, answer).await
    }

    /// Adds a filter to a link; for a shared subscription, its inner filter. When this returns,
    /// whatever is published afterwards is matched. True if the link did not have the filter.
    pub async fn subscribe(&self, link: LinkId, filter: &str) -> Result<bool, RouterError> {
        if !topic::valid_filter(filter) || topic::is_shared(filter) {
            return Err(RouterError::Filter(filter.to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        let filter = filter.into();
        let command = Command::Subscribe {
            link,
            filter,
            reply,
        };
        self.ask(command, answer).await?
    }

    /// Removes a filter from a link. When this returns, nothing more enters the link's queue
    /// because of it. True if the link had the filter.
    pub async fn unsubscribe(&self, link: LinkId, filter: &str) -> Result<bool, RouterError> {
        let (reply, answer) = oneshot::channel();
        let filter = filter.into();
        let command = Command::Unsubscribe {
            link,
            filter,
            reply,
        };
        self.ask(command, answer).await?
    }

    /// Queues a message for routing and returns its sequence. Messages are delivered to every
    /// link in the order of their sequences; waits while the command queue is full.
    pub async fn publish(&self, message: Arc<Message>) -> Result<u64, RouterError> {
        if !topic::valid_name(&message.topic) {
            return Err(RouterError::Topic(message.topic.to_string()));
        }
        let room = self.commands.reserve().await;
        let room = room.map_err(|_| RouterError::Stopped)?;
        let mut seq = self.seq.lock().unwrap_or_else(PoisonError::into_inner);
        *seq += 1;
        room.send(Command::Publish { seq: *seq, message });
        Ok(*seq)
    }

    /// Returns when everything published before is in the queues of its links.
    pub async fn fence(&self) -> Result<(), RouterError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Fence { reply }, answer).await
    }

    pub fn stats(&self) -> Stats {
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counters;
        Stats {
            published: get(&c.published),
            delivered: get(&c.delivered),
            dropped: get(&c.dropped),
            closed: get(&c.closed),
            deaths: get(&c.deaths),
            replaced: get(&c.replaced),
            unaided: get(&c.unaided),
            late: get(&c.late),
            links: get(&c.links),
            filters: get(&c.filters),
            engine_bytes: get(&c.engine_bytes),
        }
    }

    /// Makes rumqttd's Router panic in the middle of what is being published, in any build, by
    /// feeding it a topic known to end it. For tests; clients notice nothing.
    pub async fn panic_for_test(&self) -> Result<(), RouterError> {
        self.commands
            .send(Command::Poison)
            .await
            .map_err(|_| RouterError::Stopped)
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, RouterError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| RouterError::Stopped)?;
        answer.await.map_err(|_| RouterError::Stopped)
    }
}

#[cfg(test)]
mod tests;
