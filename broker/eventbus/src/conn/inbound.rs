//! Messages from one client: validate, hand over, and acknowledge in the order they came, each
//! when it is committed and routed.

use std::sync::Arc;

use edgebus_bus::{Name, Topic, filter, limits};
use tokio::sync::oneshot;

use super::{Conn, End};
use crate::broker::place_of;
use crate::codec::{Ack, Packet, Properties, Publish, QoS, ReasonCode, Version};
use crate::message::{Message, from_publish, weight};
use crate::store::{Place, Refused};

/// Bytes of messages that wait for their commit, of one connection.
const PENDING_BYTES: usize = 4 * 1024 * 1024;
/// Notes to a client about its own mistakes, per connection.
const NOTES: u32 = 100;

/// One message on its way in.
pub(super) struct Pending {
    packet_id: u16,
    qos: QoS,
    weight: usize,
    topic: Arc<str>,
    pub(super) state: State,
}

pub(super) enum State {
    /// Handed over, true = to the store; the answer will come.
    Waiting(oneshot::Receiver<Result<(), Refused>>, bool),
    /// Not handed over yet.
    Next(Message, Place),
    /// Refused already; said when all before it are done.
    Refused(ReasonCode, String),
}

impl Conn {
    /// Whether more packets may be taken from this client now.
    pub(super) fn takes_more(&self) -> bool {
        self.pending.len() < usize::from(self.broker.config.in_flight)
            && self.pending_bytes < PENDING_BYTES
    }

    pub(super) async fn publish(&mut self, mut packet: Publish) -> Result<(), End> {
        self.broker.counters.published.up();
        if packet.qos == QoS::ExactlyOnce {
            let why = "QoS 2 is not supported: publish with QoS 1";
            self.note_refusal(&packet.topic, why).await;
            return Err(End::refused(ReasonCode::QoSNotSupported, why));
        }
        let topic = self.resolve(&mut packet)?;
        let (packet_id, qos) = (packet.packet_id, packet.qos);
        let (message, place) = match self.validate(packet, topic.clone()) {
            Ok(valid) => valid,
            Err((reason, why)) => {
                let state = State::Refused(reason, why);
                self.pend(packet_id, qos, 0, topic, state);
                return self.settle().await;
            }
        };
        if qos == QoS::AtMostOnce && place == Place::Nowhere && self.pending.is_empty() {
            self.broker.submit(message, place, false, None).await;
            return Ok(());
        }
        let size = weight(&message);
        self.pend(packet_id, qos, size, topic, State::Next(message, place));
        self.settle().await
    }

    fn pend(&mut self, packet_id: u16, qos: QoS, weight: usize, topic: Arc<str>, state: State) {
        self.pending_bytes += weight;
        self.pending.push_back(Pending {
            packet_id,
            qos,
            weight,
            topic,
            state,
        });
    }

    /// Hands over all that may go without overtaking: the store hands on to the spine, so only
    /// what bypasses the store must wait for what went there.
    async fn advance(&mut self) {
        let mut store_before = false;
        for pending in &mut self.pending {
            match &pending.state {
                State::Waiting(_, stored) => store_before |= stored,
                State::Refused(..) => {}
                State::Next(message, place) => {
                    let stored = self.broker.needs_store(message, *place);
                    if store_before && !stored {
                        return;
                    }
                    let (reply, answer) = oneshot::channel();
                    let waiting = State::Waiting(answer, stored);
                    if let State::Next(message, place) =
                        std::mem::replace(&mut pending.state, waiting)
                    {
                        let reply = Some(reply);
                        let stored = self.broker.submit(message, place, stored, reply).await;
                        store_before |= stored;
                        if let State::Waiting(_, was) = &mut pending.state {
                            *was = stored;
                        }
                    }
                }
            }
        }
    }

    /// The topic, by alias if there is one.
    fn resolve(&mut self, packet: &mut Publish) -> Result<Arc<str>, End> {
        let name = std::mem::take(&mut packet.topic);
        let Some(alias) = packet.properties.topic_alias else {
            return Ok(name.into());
        };
        if alias > super::hello::ALIASES {
            let why = format!(
                "topic alias {alias}: at most {} is allowed",
                super::hello::ALIASES
            );
            return Err(End::refused(ReasonCode::TopicAliasInvalid, why));
        }
        if name.is_empty() {
            let known = self.aliases.get(&alias).cloned();
            return known.ok_or_else(|| {
                let why = format!("topic alias {alias} has not been set");
                End::refused(ReasonCode::ProtocolError, why)
            });
        }
        let name: Arc<str> = name.into();
        self.aliases.insert(alias, name.clone());
        Ok(name)
    }

    fn validate(
        &self,
        packet: Publish,
        topic: Arc<str>,
    ) -> Result<(Message, Place), (ReasonCode, String)> {
        if let Err(error) = filter::check_name(&topic) {
            let shown: String = topic.chars().take(100).collect();
            let why = format!("topic {shown:?}: {error}");
            return Err((ReasonCode::TopicNameInvalid, why));
        }
        let row = match self.rules.may_publish(&topic, packet.retain) {
            Ok(row) => row,
            Err(refusal) => return Err((ReasonCode::NotAuthorized, refusal.to_string())),
        };
        if packet.payload.len() > limits::PAYLOAD_BYTES {
            let why = format!(
                "the payload has {} bytes: at most {} are allowed",
                packet.payload.len(),
                limits::PAYLOAD_BYTES
            );
            return Err((ReasonCode::QuotaExceeded, why));
        }
        if !packet.payload_is_as_declared() {
            let why = "the payload is declared as UTF-8 and is not".to_owned();
            return Err((ReasonCode::PayloadFormatInvalid, why));
        }
        let place = place_of(row, packet.retain);
        Ok((from_publish(packet, topic, self.key.clone()), place))
    }

    /// Handles the answer to the first of those that wait.
    pub(super) async fn answered(
        &mut self,
        answer: Result<Result<(), Refused>, oneshot::error::RecvError>,
    ) -> Result<(), End> {
        let Some(done) = self.pending.pop_front() else {
            return Ok(());
        };
        self.pending_bytes -= done.weight;
        match answer.unwrap_or(Err(Refused::Stopped)) {
            Ok(()) => self.acknowledge(&done, ReasonCode::Success, None),
            Err(refused) => {
                self.refuse(&done, refused.reason(), refused.to_string())
                    .await;
                // 3.1.1 has no way to say it: no acknowledgement and an end, so that the client
                // sends it again when it is back.
                if self.version == Version::V4 && done.qos != QoS::AtMostOnce {
                    return Err(End::refused(refused.reason(), refused.to_string()));
                }
            }
        }
        self.settle().await
    }

    /// Hands over what may go and says the refusals whose turn it is.
    async fn settle(&mut self) -> Result<(), End> {
        while let Some(Pending {
            state: State::Refused(..),
            ..
        }) = self.pending.front()
        {
            if let Some(done) = self.pending.pop_front()
                && let State::Refused(reason, why) = &done.state
            {
                self.refuse(&done, *reason, why.clone()).await;
            }
        }
        self.advance().await;
        Ok(())
    }

    /// Refuses a publish. MQTT 5 says so in the PUBACK; under 3.1.1 what is not allowed is
    /// acknowledged and dropped, as other brokers do, because the client would send it for ever.
    async fn refuse(&mut self, done: &Pending, reason: ReasonCode, why: String) {
        self.broker.counters.refused.up();
        tracing::info!(client = %self.key, topic = %done.topic, why, "a publish is refused");
        self.note_refusal(&done.topic, &why).await;
        let permanent =
            reason != ReasonCode::QuotaExceeded && reason != ReasonCode::UnspecifiedError;
        if self.version == Version::V5 || permanent {
            self.acknowledge(done, reason, Some(why));
        }
    }

    fn acknowledge(&mut self, done: &Pending, reason: ReasonCode, why: Option<String>) {
        if done.qos != QoS::AtLeastOnce {
            return;
        }
        let mut properties = Properties::NONE;
        if self.version == Version::V5 && self.explain && why.is_some() {
            properties.reason_string = why;
        }
        self.output.put(&Packet::PubAck(Ack {
            packet_id: done.packet_id,
            reason,
            properties,
        }));
    }

    /// Tells a client's author what was refused, where any MQTT version can read it.
    pub(super) async fn note_refusal(&mut self, what: &str, why: &str) {
        self.notes += 1;
        let Ok(c) = Name::new(self.rules.identity().name.clone()) else {
            return;
        };
        if self.notes > NOTES {
            return;
        }
        let what: String = what.chars().take(200).collect();
        let said = serde_json::json!({ "client": self.client_id, "topic": what, "why": why });
        let topic = Topic::Refused { c };
        self.broker
            .say(&topic, said.to_string().into_bytes(), false)
            .await;
    }
}
