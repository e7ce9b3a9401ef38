//! Messages to one client: what comes live, from the session's queue and from replays, in order,
//! as far as the client's window and the socket take them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::outbox::Entry;
use super::{Conn, End};
use crate::broker::Cursor;
use crate::codec::{Packet, Publish, QoS, ReasonCode};
use crate::message::{Message, Outgoing, left};
use crate::router::Delivery;
use crate::store::{Job, Page, Refused, lower};

/// Unwritten bytes beyond which nothing more is encoded.
const ENCODED: usize = 32 * 1024;
/// Messages of a persistent session in memory; the rest stays on disk.
const SESSION_MESSAGES: usize = 128;
const SESSION_BYTES: usize = 1024 * 1024;

/// A page that has been asked for.
pub(super) enum Load {
    Replay(Arc<str>, oneshot::Receiver<Result<Page, Refused>>),
    Queue(oneshot::Receiver<Result<Vec<Outgoing>, Refused>>),
}

impl Load {
    pub(super) fn is_for(&self, filter: &str) -> bool {
        matches!(self, Self::Replay(f, _) if &**f == filter)
    }
}

/// A page that has come.
pub(super) enum Loaded {
    Replay(Result<Page, Refused>),
    Queue(Result<Vec<Outgoing>, Refused>),
}

pub(super) async fn loaded(load: &mut Option<Load>) -> Loaded {
    match load {
        Some(Load::Replay(_, page)) => Loaded::Replay(page.await.unwrap_or(Err(Refused::Stopped))),
        Some(Load::Queue(page)) => Loaded::Queue(page.await.unwrap_or(Err(Refused::Stopped))),
        None => std::future::pending().await,
    }
}

impl Conn {
    /// A message that the router has for this connection.
    pub(super) fn live(&mut self, delivery: Delivery) -> Result<(), End> {
        let message = delivery.message;
        let mut out: Option<Outgoing> = None;
        for filter in delivery.matched.iter() {
            let Some(sub) = self.subs.get(filter) else {
                continue;
            };
            let own = sub.wish.no_local && message.publisher == self.key;
            if own || sub.from.covers(message.commit) {
                continue;
            }
            let qos = lower(message.qos, sub.wish.qos);
            let retain = message.retain && sub.wish.retain_as_published;
            let ids = (sub.wish.id != 0).then_some(sub.wish.id);
            match &mut out {
                Some(out) => {
                    out.qos = out.qos.max(qos);
                    out.retain |= retain;
                    out.ids.extend(ids);
                }
                None => {
                    out = Some(Outgoing {
                        message: message.clone(),
                        qos,
                        retain,
                        ids: ids.into_iter().collect(),
                        q: 0,
                        dup: false,
                    });
                }
            }
        }
        match out {
            Some(out) if self.rules.may_read(&message.topic) => self.enqueue(out),
            _ => Ok(()),
        }
    }

    /// Queues a live message of a session that ends with the connection.
    fn enqueue(&mut self, out: Outgoing) -> Result<(), End> {
        let config = &self.broker.config;
        let weight = out.weight();
        if self
            .outbox
            .has_room(config.queue_messages, config.queue_bytes, weight)
        {
            self.outbox.push(out);
            return Ok(());
        }
        if out.qos == QoS::AtMostOnce {
            self.broker.counters.dropped.up();
            return Ok(());
        }
        self.broker.counters.too_slow.up();
        let why = "too many messages wait for this client";
        Err(End::refused(ReasonCode::QuotaExceeded, why))
    }

    /// Takes everything that the router has for this connection now.
    pub(super) fn take_live_checked(&mut self) -> Result<(), End> {
        while let Some(delivery) = self.link.as_mut().and_then(|l| l.try_recv()) {
            self.live(delivery)?;
        }
        Ok(())
    }

    /// Queues everything that has come live, so that a replay goes behind it.
    pub(super) async fn take_live(&mut self) -> Result<(), End> {
        self.take_live_checked()?;
        while let Some(out) = self.mail.as_mut().and_then(|m| m.queue.try_recv().ok()) {
            self.mailed(out).await;
        }
        Ok(())
    }

    /// A message for a persistent session, fresh from its commit.
    pub(super) async fn mailed(&mut self, out: Outgoing) {
        if out.q == 0 {
            if self.wanted(&out)
                && self
                    .outbox
                    .has_room(SESSION_MESSAGES, SESSION_BYTES, out.weight())
            {
                self.outbox.push(out);
            }
            return;
        }
        let next = out.q == self.outbox.cursor + 1;
        let room = self
            .outbox
            .has_room(SESSION_MESSAGES, SESSION_BYTES, out.weight());
        if out.q <= self.outbox.cursor {
            return;
        }
        if self.outbox.behind || !next || !room {
            self.outbox.behind = true;
            return;
        }
        self.take_queued(out).await;
    }

    /// Moves the session's cursor over a message and queues it if it is wanted.
    async fn take_queued(&mut self, out: Outgoing) {
        self.outbox.cursor = out.q;
        if self.wanted(&out) {
            self.outbox.push(out);
        } else {
            self.ack_store(out.q).await;
        }
    }

    /// Whether a persistent session's message is allowed and not covered by a replay.
    fn wanted(&self, out: &Outgoing) -> bool {
        let message = &out.message;
        if !self.rules.may_read(&message.topic) {
            return false;
        }
        if message.commit == 0 {
            return true;
        }
        let (mut matched, mut news) = (false, false);
        for sub in self.subs.values() {
            if crate::codec::topic::matches(&sub.wish.filter, &message.topic) {
                matched = true;
                news |= !sub.from.covers(message.commit);
            }
        }
        news || !matched
    }

    pub(super) async fn on_loaded(&mut self, loaded: Loaded) -> Result<(), End> {
        self.load = None;
        match loaded {
            Loaded::Replay(Ok(page)) => {
                if let Some(Entry::Replay(replay)) = self.outbox.front() {
                    replay.page = page.messages.into();
                    replay.cursor = match page.next {
                        Some(next) => Cursor::Disk(Some(next)),
                        None => Cursor::Memory(None),
                    };
                }
                Ok(())
            }
            Loaded::Queue(Ok(page)) => {
                // What was committed while the page was read comes as mail after it.
                self.outbox.behind = !page.is_empty();
                for out in page {
                    self.take_queued(out).await;
                }
                Ok(())
            }
            Loaded::Replay(Err(error)) | Loaded::Queue(Err(error)) => Err(End::refused(
                ReasonCode::UnspecifiedError,
                error.to_string(),
            )),
        }
    }

    /// Sends what may be sent and asks for the next page when it is needed.
    pub(super) async fn pump(&mut self) -> Result<(), End> {
        while self.output.waiting() < ENCODED {
            if self.output.waiting() == 0 {
                self.wrote = tokio::time::Instant::now();
            }
            let room = self.window.has_room();
            match self.outbox.front() {
                None => {
                    if self.outbox.behind && self.load.is_none() {
                        self.load_queue().await;
                    }
                    return Ok(());
                }
                Some(Entry::Out(out)) => {
                    if out.qos != QoS::AtMostOnce && !room {
                        return Ok(());
                    }
                    if let Some(Entry::Out(out)) = self.outbox.pop() {
                        if self.overtaken(&out.message.topic, out.message.commit) {
                            self.ack_store(out.q).await;
                        } else {
                            self.send(out, false).await;
                        }
                    }
                }
                Some(Entry::Replay(_)) => {
                    if !self.pump_replay(room).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes one step in the replay at the front; false if it must wait.
    async fn pump_replay(&mut self, room: bool) -> bool {
        let Some(Entry::Replay(replay)) = self.outbox.front() else {
            return true;
        };
        if let Some(message) = replay.page.front() {
            let Some(sub) = self.subs.get_mut(&replay.filter) else {
                self.outbox.pop();
                return true;
            };
            let qos = lower(message.qos, sub.wish.qos);
            if qos != QoS::AtMostOnce && !room {
                return false;
            }
            let Some(message) = replay.page.pop_front() else {
                return true;
            };
            self.ahead |= sub.replayed(&message.topic, message.commit);
            if self.rules.may_read(&message.topic) {
                let ids = (sub.wish.id != 0).then_some(sub.wish.id);
                let out = Outgoing {
                    message,
                    qos,
                    retain: true,
                    ids: ids.into_iter().collect(),
                    q: 0,
                    dup: false,
                };
                self.send(out, true).await;
            }
            return true;
        }
        match replay.cursor.clone() {
            Cursor::Disk(after) => {
                if self.load.is_none() {
                    let filter = replay.filter.clone();
                    let page = self.broker.load_page(&filter, after).await;
                    self.load = Some(Load::Replay(filter, page));
                }
                false
            }
            Cursor::Memory(after) => {
                let page = self.broker.memory.page(&replay.filter, after.as_deref());
                replay.page = page.messages.into();
                replay.cursor = match page.next {
                    Some(next) => Cursor::Memory(Some(next)),
                    None => Cursor::End,
                };
                true
            }
            Cursor::End => {
                let filter = replay.filter.clone();
                self.outbox.pop();
                self.replayed.push(filter);
                self.note_replayed().await;
                true
            }
        }
    }

    /// Once no message of a replay is on its way, the session need not repeat it.
    async fn note_replayed(&mut self) {
        if self.replayed.is_empty() || self.window.replaying() {
            return;
        }
        for filter in std::mem::take(&mut self.replayed) {
            if self.session != 0 {
                let session = self.session;
                self.broker
                    .store
                    .send(Job::Replayed { session, filter })
                    .await;
            }
        }
    }

    async fn load_queue(&mut self) {
        let (reply, page) = oneshot::channel();
        let job = Job::Queued {
            session: self.session,
            after: self.outbox.cursor,
            reply,
        };
        self.broker.store.send(job).await;
        self.load = Some(Load::Queue(page));
    }

    async fn send(&mut self, mut out: Outgoing, replay: bool) {
        let Ok(expiry) = left(&out.message) else {
            return self.ack_store(out.q).await;
        };
        let message: &Message = &out.message;
        let mut properties = message.properties.clone();
        if let Some(left) = expiry {
            properties.message_expiry_interval = Some(left);
        }
        if !out.ids.is_empty() {
            properties.subscription_ids = std::mem::take(&mut out.ids);
        }
        let (topic, payload) = (message.topic.to_string(), message.payload.clone());
        let packet_id = match out.qos {
            QoS::AtMostOnce => 0,
            _ => self.window.send(&mut out, replay),
        };
        let sent = self.output.put(&Packet::Publish(Publish {
            dup: out.dup && packet_id != 0,
            qos: out.qos,
            retain: out.retain,
            topic,
            packet_id,
            properties,
            payload,
        }));
        if sent {
            self.broker.counters.delivered.up();
        } else if packet_id != 0 {
            // Larger than the client takes: as if it had been delivered (MQTT-3.1.2-25).
            self.window.acknowledged(packet_id);
            self.ack_store(out.q).await;
        }
    }

    /// The client has a message for good.
    pub(super) async fn acknowledged(&mut self, packet_id: u16) {
        match self.window.acknowledged(packet_id) {
            Some(sent) => {
                self.ack_store(sent.q).await;
                if sent.replay {
                    self.note_replayed().await;
                }
            }
            None => tracing::debug!(client = %self.key, packet_id, "PUBACK of nothing"),
        }
    }

    async fn ack_store(&mut self, q: u64) {
        if q != 0 {
            let session = self.session;
            self.broker.store.send(Job::Ack { session, q }).await;
        }
    }
}
