//! What all connections share, and the way in for a message from any of them.

use std::sync::Arc;

use edgebus_bus::payload::{self, Health, Up};
use edgebus_bus::table::{Durability, Retain};
use edgebus_bus::{Name, Topic};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::acl::RowId;
use crate::codec::QoS;
use crate::config::Config;
use crate::counters::Counters;
use crate::grants::{BROKER, Grants};
use crate::message::Message;
use crate::registry::Registry;
use crate::router::Router;
use crate::spine::{Mailboxes, Memory, Routed};
use crate::store::{Job, Page, Place, Refused, Reply, Store};

/// The shared part of a broker.
pub struct Broker {
    pub config: Config,
    pub store: Store,
    pub router: Router,
    pub spine: mpsc::Sender<Routed>,
    pub memory: Arc<Memory>,
    pub mailboxes: Arc<Mailboxes>,
    pub counters: Arc<Counters>,
    pub grants: Grants,
    pub registry: Arc<Registry>,
    pub stop: CancellationToken,
    /// Random id of this start.
    pub boot: String,
}

/// Where a replay of retained messages has got to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    Disk(Option<Arc<str>>),
    Memory(Option<Arc<str>>),
    End,
}

/// The last commits on disk and in memory that a reader will see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watermark {
    pub disk: u64,
    pub memory: u64,
}

impl Watermark {
    /// Whether a message with this commit number is covered; 0 = never stored, never covered.
    pub fn covers(&self, commit: u64) -> bool {
        let limit = if commit & crate::message::MEMORY != 0 {
            self.memory
        } else {
            self.disk
        };
        commit != 0 && commit <= limit
    }
}

/// Where the retained value of a message belongs.
pub fn place_of(row: RowId, retain: bool) -> Place {
    let row = row.row();
    if !retain || row.retain == Retain::Never {
        return Place::Nowhere;
    }
    match row.durability {
        Durability::None => Place::Memory,
        durable => Place::Disk(durable),
    }
}

impl Broker {
    /// Whether a message must be committed before it is routed.
    pub fn needs_store(&self, message: &Message, place: Place) -> bool {
        matches!(place, Place::Disk(_)) || self.store.standing().wants(&message.topic)
    }

    /// Sends a message on its way, through the store if it must or `stored` says so; returns
    /// whether it went there. With `reply`, the answer comes when it is committed and routed.
    pub async fn submit(
        &self,
        message: Message,
        place: Place,
        stored: bool,
        reply: Option<Reply>,
    ) -> bool {
        // When the spine or the store has stopped, the dropped reply says so.
        if !stored && !matches!(place, Place::Disk(_)) {
            let Ok(room) = self.spine.reserve().await else {
                return false;
            };
            // Under the lock: a session that subscribes meanwhile finds this message behind its
            // subscription or before its fence, never in between.
            let standing = self.store.standing();
            if !standing.wants(&message.topic) {
                room.send(Routed::Passing {
                    message,
                    memory: place == Place::Memory,
                    reply,
                });
                return false;
            }
        }
        let job = Job::Publish {
            message,
            place,
            reply,
        };
        self.store.send(job).await;
        true
    }

    /// Publishes and waits until it is routed.
    pub async fn publish(&self, message: Message, place: Place) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.submit(message, place, false, Some(reply)).await;
        answer.await.map_err(|_| Refused::Stopped)?
    }

    /// What readers will see from now on.
    pub fn watermark(&self) -> Watermark {
        Watermark {
            disk: self.store.watermark(),
            memory: self.memory.watermark(),
        }
    }

    /// Returns when all that was submitted has been given its place and handed to the router.
    pub async fn spine_fence(&self) {
        let (reply, done) = oneshot::channel();
        if self.spine.send(Routed::Fence(reply)).await.is_ok() {
            // An error means that the broker stops.
            done.await.ok();
        }
    }

    /// Returns when all that is committed now is in the queues of its subscribers.
    pub async fn fence(&self) {
        self.spine_fence().await;
        // The same.
        self.router.fence().await.ok();
    }

    /// The next page of a replay from disk.
    pub async fn load_page(
        &self,
        filter: &Arc<str>,
        after: Option<Arc<str>>,
    ) -> oneshot::Receiver<Result<Page, Refused>> {
        let (reply, page) = oneshot::channel();
        let filter = filter.clone();
        let job = Job::Retained {
            filter,
            after,
            reply,
        };
        self.store.send(job).await;
        page
    }

    /// Says a retained or passing thing in the broker's own name.
    pub async fn say(&self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        let mut message = Message::new(topic.to_string(), payload);
        message.qos = QoS::AtLeastOnce;
        message.retain = retain;
        message.publisher = format!("{BROKER}/").into();
        let place = if retain {
            Place::Memory
        } else {
            Place::Nowhere
        };
        if let Err(error) = self.publish(message, place).await {
            tracing::debug!(%error, %topic, "not said");
        }
    }

    /// The broker's health, retained.
    pub async fn say_health(&self, state: Up, why: Option<String>) {
        let health = Health {
            state,
            boot: self.boot.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            why,
        };
        let topic = Topic::Health { c: own_name() };
        self.say(&topic, payload::write(&health), true).await;
    }

    /// Clears what a name had retained under its own rows.
    pub async fn clear_state_of(&self, name: &str) {
        for filter in crate::acl::own_state(name) {
            let filter: Arc<str> = filter.into();
            let mut topics = self.memory.topics(&filter);
            let mut after = None;
            loop {
                let Ok(Ok(page)) = self.load_page(&filter, after.take()).await.await else {
                    break;
                };
                topics.extend(page.messages.iter().map(|m| m.topic.clone()));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            for topic in topics {
                let place = crate::acl::row_of(&topic).map(|row| place_of(row, true));
                let mut empty = Message::new(topic, Vec::new());
                empty.qos = QoS::AtLeastOnce;
                empty.retain = true;
                if let Some(place) = place
                    && let Err(error) = self.publish(empty, place).await
                {
                    tracing::warn!(%error, name, "state of a forgotten name was not cleared");
                }
            }
        }
    }
}

fn own_name() -> Name {
    Name::new(BROKER).expect("the broker's name is a valid name")
}
