//! The handle that a process has on the bus.

use crate::collection::{Change, Collection};
use crate::error::{Error, Result};
use crate::flight::Done;
use crate::inbox::Inbox;
use crate::message::Message;
use crate::options::ConnectOptions;
use crate::queue::{Coalesced, Fifo};
use crate::session::{self, Command, Detach, Shared, Status};
use crate::subs::Sink;
use bytes::Bytes;
use edgebus_bus::payload::Up;
use edgebus_bus::{Name, Topic};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Commands that wait for the connection.
const COMMANDS: usize = 64;

struct Inner {
    options: ConnectOptions,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    next_sub: AtomicU64,
    boot: String,
    stop: CancellationToken,
    dump: OnceLock<Dump>,
}

type Dump = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// A connection to the bus that mends itself. Cheap to clone; must be made within a tokio runtime.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

impl Bus {
    /// Begins to connect and returns at once; see [`connected`](Self::connected). The connection
    /// is tried for ever until `stop`, or [`close`](Self::close). Then what was published is given
    /// two seconds to be acknowledged, `down` is said, and all that waits ends with
    /// [`Error::Closed`]. Use a token that is cancelled after the component's own, so that its
    /// last words get through.
    pub fn connect(options: ConnectOptions, stop: CancellationToken) -> Self {
        let boot = crate::random_id();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (said, status) = watch::channel(Status::default());
        let shared = Arc::new(Shared::default());
        // A token of our own: `close` must not stop the caller's other work.
        let stop = stop.child_token();
        let bus = Self {
            inner: Arc::new(Inner {
                options: options.clone(),
                commands,
                shared: shared.clone(),
                status,
                next_sub: AtomicU64::new(1),
                boot: boot.clone(),
                stop: stop.clone(),
                dump: OnceLock::new(),
            }),
        };
        tokio::spawn(session::run(
            session::Config {
                options: options.clone(),
                boot,
                keep_session: false,
                will: None,
            },
            inbox,
            shared,
            said,
            stop,
        ));
        if options.is_unit {
            tokio::spawn(crate::ask::answer(bus.clone()));
        }
        bus
    }

    /// Waits for the first connection. An error if the broker refuses us, or if there is none
    /// within `wait`; the attempts go on all the same.
    pub async fn connected(&self, wait: Duration) -> Result<()> {
        let mut status = self.inner.status.clone();
        let up = status.wait_for(|s| s.connected || s.refused.is_some() || s.closed);
        let outcome = timeout(wait, up).await;
        match outcome {
            Ok(Ok(s)) if s.connected => return Ok(()),
            Ok(Ok(s)) => {
                if let Some(code) = s.refused {
                    return Err(Error::ConnectRefused {
                        address: self.inner.options.address.to_string(),
                        name: self.inner.options.name.to_string(),
                        code,
                    });
                }
                return Err(Error::Closed);
            }
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => {}
        }
        Err(Error::NotConnected {
            address: self.inner.options.address.to_string(),
            waited: wait,
            last: self.inner.status.borrow().last_error.clone(),
        })
    }

    /// Whether there is a connection, and since which attempt: for those who want to know.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Our name on the bus.
    pub fn name(&self) -> &Name {
        &self.inner.options.name
    }

    /// Random id of this start.
    pub fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// Publishes state. Returns when the broker has acknowledged it, over reconnects if need be:
    /// then it is as durable as its row says. State whose row says `none` is remembered and said
    /// again at each connect.
    pub async fn put<T: Serialize>(&self, topic: &Topic, value: &T) -> Result<()> {
        self.publish(Message::json(topic, value)?).await
    }

    /// Clears state.
    pub async fn clear(&self, topic: &Topic) -> Result<()> {
        self.publish(Message::clear(topic)).await
    }

    /// Publishes a passing message. Returns when the broker has acknowledged it.
    pub async fn send<T: Serialize>(&self, topic: &Topic, value: &T) -> Result<()> {
        self.publish(Message::json(topic, value)?).await
    }

    /// Publishes any message; for `$hw/…`, `app/…` and bytes see [`Message::new`].
    pub async fn publish(&self, message: Message) -> Result<()> {
        self.post(message).await?.acknowledged().await
    }

    /// Hands a message over and returns at once, unless too many wait already. Messages of one
    /// `Bus` are sent in the order of these calls; whoever needs to know that it arrived awaits
    /// the [`Receipt`].
    pub async fn post(&self, message: Message) -> Result<Receipt> {
        message.check()?;
        let (done, wait) = oneshot::channel();
        self.command(Command::Publish(message, Some(done) as Done))
            .await?;
        Ok(Receipt(wait))
    }

    /// Publishes many, with as many under way as the broker allows. Returns when all are
    /// acknowledged, with the first refusal if there was one; the others are published all the
    /// same.
    pub async fn publish_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        let mut receipts = Vec::new();
        let mut outcome = Ok(());
        for message in messages {
            match self.post(message).await {
                Ok(receipt) => receipts.push(receipt),
                Err(e) => outcome = outcome.and(Err(e)),
            }
        }
        for receipt in receipts {
            let result = receipt.acknowledged().await;
            outcome = outcome.and(result);
        }
        outcome
    }

    /// A live collection of all state under these filters.
    pub async fn collection<S: Into<String>>(
        &self,
        filters: impl IntoIterator<Item = S>,
    ) -> Result<Collection> {
        let queue = Arc::new(Coalesced::default());
        let detach = self
            .attach(filters, Sink::Collection(queue.clone()))
            .await?;
        Ok(Collection {
            queue,
            _detach: detach,
        })
    }

    /// All state under these filters, as it is now.
    pub async fn snapshot<S: Into<String>>(
        &self,
        filters: impl IntoIterator<Item = S>,
        wait: Duration,
    ) -> Result<BTreeMap<String, Bytes>> {
        let filters: Vec<String> = filters.into_iter().map(Into::into).collect();
        let shown = filters.join(" ");
        let mut mirror = self.collection(filters).await?.mirror();
        let synced = async {
            loop {
                match mirror.next().await {
                    None => return Err(Error::Closed),
                    Some(Err(e)) => return Err(e),
                    Some(Ok(Change::Synced)) => return Ok(()),
                    Some(Ok(_)) => {}
                }
            }
        };
        match timeout(wait, synced).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Error::NoAnswer {
                    topic: shown,
                    waited: wait,
                });
            }
        }
        Ok(mirror.into_members())
    }

    /// Messages under these filters as they come; retained ones first. At least once: where two
    /// filters overlap a message may come twice.
    pub async fn subscribe<S: Into<String>>(
        &self,
        filters: impl IntoIterator<Item = S>,
    ) -> Result<Subscription> {
        let queue = Arc::new(Fifo::default());
        let detach = self.attach(filters, Sink::Stream(queue.clone())).await?;
        Ok(Subscription {
            queue,
            _detach: detach,
        })
    }

    /// The messages that this component may not miss, on a connection of their own
    /// (`{name}.inbox`), whose session the broker keeps.
    pub fn inbox(&self) -> Inbox {
        Inbox::open(&self.inner.options, &self.inner.stop, None)
    }

    /// The same, and that connection leaves a will: MQTT allows one for each, and the main
    /// connection's is the health. It has to be said anew after each of the inbox's connects (see
    /// [`Inbox::status`]): that one of them broke does not mean that we are gone.
    pub fn inbox_with_will(&self, will: Message) -> Inbox {
        Inbox::open(&self.inner.options, &self.inner.stop, Some(will))
    }

    /// Says how we are, on `sys/{name}/health`; at first every unit is `up`.
    pub async fn set_health(&self, state: Up, why: Option<String>) -> Result<()> {
        self.command(Command::Health(state, why)).await
    }

    /// What this component adds to the answer to `dump`; the first call counts.
    pub fn on_dump(&self, dump: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        if self.inner.dump.set(Box::new(dump)).is_err() {
            tracing::debug!("on_dump was called twice");
        }
    }

    pub(crate) fn dump(&self) -> Option<serde_json::Value> {
        self.inner.dump.get().map(|dump| dump())
    }

    /// Ends the connection as its `stop` would, and waits for that.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        let mut status = self.inner.status.clone();
        // The sender lives as long as the session: gone means closed.
        drop(status.wait_for(|s| s.closed).await);
    }

    async fn attach<S: Into<String>>(
        &self,
        filters: impl IntoIterator<Item = S>,
        sink: Sink,
    ) -> Result<Detach> {
        let filters: Vec<String> = filters.into_iter().map(Into::into).collect();
        for filter in &filters {
            edgebus_bus::filter::check_filter(filter).map_err(|e| Error::BadTopic {
                topic: filter.clone(),
                why: e.to_string(),
            })?;
        }
        let id = self.inner.next_sub.fetch_add(1, Ordering::Relaxed);
        self.command(Command::Subscribe { id, filters, sink })
            .await?;
        Ok(Detach::new(id, self.inner.shared.clone()))
    }

    async fn command(&self, command: Command) -> Result<()> {
        let sent = self.inner.commands.send(command).await;
        sent.map_err(|_| Error::Closed)
    }
}

/// The promise of an acknowledgement.
pub struct Receipt(oneshot::Receiver<Result<()>>);

impl Receipt {
    /// Waits until the broker has acknowledged the message, or refused it.
    pub async fn acknowledged(self) -> Result<()> {
        self.0.await.unwrap_or(Err(Error::Closed))
    }
}

/// A stream of messages. Dropping it unsubscribes.
pub struct Subscription {
    queue: Arc<Fifo>,
    _detach: Detach,
}

impl Subscription {
    /// Waits until the broker has granted it; an error is its refusal.
    pub async fn granted(&self) -> Result<()> {
        self.queue.granted().await
    }

    /// The next message; `None` once the bus is closed. An error is a refusal of one of the
    /// filters and comes once; nothing will follow it. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Message>> {
        self.queue.next().await
    }

    /// QoS 0 messages that were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}
