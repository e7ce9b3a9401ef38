//! The bus's side of the loop: what lies there, what is written there, what goes up from there.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edgebus_bus::payload::{self, SyncMark};
use edgebus_bus::{Name, Topic};
use edgebus_client::{Change, Delivery, Inbox, Message, now_rfc3339_ms, random_id};
use edgebus_linkproto::{Code, Kind, Put, Ticket};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::{Link, What};
use crate::mirror;
use crate::uplink;

/// For reading all of link's topics.
const READ_TIME: Duration = Duration::from_secs(30);
/// Before trying that again.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Events that go into one transaction of the spool.
const EVENT_BATCH: usize = 64;

impl Link {
    /// Reads all of link's own topics: that is all the memory it has.
    pub(super) async fn read_bus(&mut self) -> Result<()> {
        let found = match self.bus.snapshot(mirror::filters(), READ_TIME).await {
            Ok(found) => found,
            Err(error) if error.can_retry() => {
                tracing::warn!(%error, "link's topics could not be read from the bus");
                sleep(READ_PAUSE).await;
                return Ok(());
            }
            Err(error) => return Err(error).context("reading link's own topics from the bus"),
        };
        self.session.receiver().clear();
        self.marks.clear();
        self.rev = 0;
        for (text, payload) in &found {
            let Ok(topic) = Topic::parse(text) else {
                continue;
            };
            if let Topic::Sync { kind } = &topic {
                match payload::read::<SyncMark>(payload) {
                    Ok(mark) => drop(self.marks.insert(kind.to_string(), mark)),
                    Err(error) => tracing::warn!(%text, %error, "unreadable mark"),
                }
            } else if let Some(stored) = mirror::stored(&topic, payload) {
                let stored = stored.context("a topic of the table has a kind that is none")?;
                self.rev = self.rev.max(stored.rev);
                self.session
                    .receiver()
                    .load(&stored.kind, text, &stored.uid, stored.hash);
            }
        }
        self.board.all_synced(
            self.marks
                .iter()
                .filter(|(_, mark)| mark.complete)
                .map(|(kind, _)| kind.clone()),
        );
        match self
            .marks
            .values()
            .map(|mark| &mark.store_id)
            .find(|id| !id.is_empty())
        {
            Some(id) => self.store_id = id.clone(),
            None => {
                // A new store: named at once, so that the name outlives this process.
                self.store_id = random_id();
                self.mark(Kind::NODE, false);
            }
        }
        tracing::info!(topics = found.len(), rev = self.rev, store = %self.store_id, "read the bus");
        self.bus_read = true;
        for topic in self.said.keys().cloned().collect::<Vec<_>>() {
            self.offer(&topic);
        }
        Ok(())
    }

    pub(super) fn on_up(&mut self, change: Change) {
        let (text, payload) = match change {
            Change::Set { topic, payload } => (topic, Some(payload)),
            Change::Gone { topic } => (topic, None),
            Change::Synced => return,
        };
        let Ok(topic) = Topic::parse(&text) else {
            return;
        };
        match payload {
            Some(payload) => drop(self.said.insert(topic.clone(), payload)),
            None => drop(self.said.remove(&topic)),
        }
        self.offer(&topic);
    }

    /// Brings what should be in the cloud in line with what lies on the bus.
    pub(super) fn offer(&mut self, topic: &Topic) {
        let Some(kind) = uplink::kind_of(topic) else {
            return;
        };
        let text = topic.to_string();
        let owner_uid = uplink::owner(topic).and_then(|(kind, object)| {
            let uid = self.session.receiver().uid(&kind, &object.to_string());
            uid.map(str::to_owned)
        });
        let Some(payload) = self.said.get(topic) else {
            if owner_uid.is_none() {
                self.session.sender().remove(&kind, &text);
            }
            return;
        };
        let node = self.identity.as_ref().map(|id| id.pinned.node.as_str());
        if node.is_some_and(|node| !uplink::is_ours(topic, payload, node)) {
            return;
        }
        let item = uplink::item(payload, owner_uid.as_deref());
        if self
            .session
            .sender()
            .get(&kind, &text)
            .is_none_or(|old| old != &item)
            && let Err(error) = self.session.sender().set(&kind, &text, item)
        {
            tracing::warn!(%error, "it does not go up");
        }
    }

    pub(super) fn on_beat(&mut self, beat: Message) {
        let Some(topic @ Topic::NodeBeat {}) = beat.parsed() else {
            return;
        };
        if self.session.is_open() {
            self.send_beat(&topic, beat.payload);
        } else {
            self.beat = Some((Instant::now(), topic, beat.payload));
        }
    }

    /// Events go to disk, several at a time, and only then is the bus told.
    pub(super) async fn on_event(&mut self, first: Delivery, inbox: &mut Inbox) -> Result<()> {
        let mut batch = vec![first];
        while batch.len() < EVENT_BATCH {
            match timeout(Duration::ZERO, inbox.next()).await {
                Ok(Some(event)) => batch.push(event?),
                Ok(None) | Err(_) => break,
            }
        }
        let events = batch.iter().map(|e| (e.topic.as_str(), e.payload.as_ref()));
        self.spool.append(events, Timestamp::now())?;
        batch.into_iter().for_each(Delivery::ack);
        Ok(())
    }

    /// Hands events from the spool to the session.
    pub(super) fn feed(&mut self) -> Result<()> {
        let room = self.session.events().room();
        if room == 0 {
            return Ok(());
        }
        for event in self.spool.after(self.fed, room)? {
            let id = event.id;
            if self.session.events().push(event).is_err() {
                break;
            }
            self.fed = id;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, what: What, message: edgebus_client::Result<Message>) {
        let bus = self.bus.clone();
        self.writing.push(Box::pin(async move {
            let result = match message {
                Ok(message) => bus.publish(message).await,
                Err(error) => Err(error),
            };
            (what, result)
        }));
    }

    pub(super) fn mark(&mut self, kind: &str, complete: bool) {
        let Ok(name) = Name::new(kind) else { return };
        let cluster_id = self
            .identity
            .as_ref()
            .map(|id| id.pinned.cluster_id.clone())
            .unwrap_or_default();
        let mark = SyncMark {
            store_id: self.store_id.clone(),
            cluster_id,
            complete,
            at: now_rfc3339_ms(),
        };
        let same = |old: &SyncMark| {
            SyncMark {
                at: mark.at.clone(),
                ..old.clone()
            } == mark
        };
        if self.marks.get(kind).is_some_and(same) {
            return;
        }
        let message = Message::json(&Topic::Sync { kind: name }, &mark);
        self.marks.insert(kind.to_owned(), mark);
        self.write(What::Mark(kind.to_owned()), message);
    }

    pub(super) fn on_written(&mut self, what: What, result: edgebus_client::Result<()>) {
        match (what, result) {
            (What::Effect(ticket, topic), Ok(())) => {
                let acts = self.session.done(ticket);
                self.on_acts(acts);
                // What goes up about an object carries its uid, or goes with it.
                if let Some(about) = uplink::owned(&topic) {
                    self.offer(&about);
                }
            }
            (What::Effect(ticket, _), Err(error)) => {
                let permanent = !error.can_retry();
                let code = if permanent {
                    Code::UNPROCESSABLE
                } else {
                    Code::UNAVAILABLE
                };
                tracing::warn!(%error, "the bus does not take it");
                let acts = self
                    .session
                    .failed(ticket, code, &error.to_string(), permanent);
                self.on_acts(acts);
            }
            (What::Mark(kind), Err(error)) => {
                self.marks.remove(&kind);
                tracing::warn!(%kind, %error, "the mark could not be written");
            }
            (What::State, Err(error)) => tracing::debug!(%error, "the link's state"),
            (What::Mark(_) | What::State, Ok(())) => {}
        }
    }

    /// Puts on the bus what came from the cloud.
    pub(super) fn apply(&mut self, ticket: Ticket, put: &Put) {
        let topic = mirror::check(&put.kind, &put.topic);
        let ready =
            topic.and_then(|topic| Ok((mirror::payload(&topic, put, self.rev + 1)?, topic)));
        match ready {
            Ok((payload, topic)) => {
                self.rev += 1;
                let message = Message::new(put.topic.as_str(), payload);
                self.write(What::Effect(ticket, topic), message);
            }
            Err(error) => self.refuse(ticket, Code::UNPROCESSABLE, &error.to_string()),
        }
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, code: Code, why: &str) {
        tracing::warn!(%code, %why, "refused what the cloud sent");
        let acts = self.session.failed(ticket, code, why, true);
        self.on_acts(acts);
    }

    pub(super) fn say(&mut self) {
        self.board.spool(self.spool.totals());
        if let Some(state) = self.board.news(Instant::now()) {
            self.write(What::State, Message::json(&Topic::Link {}, &state));
        }
    }
}
