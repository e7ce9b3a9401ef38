//! SUBSCRIBE and UNSUBSCRIBE. SUBSCRIBE is a barrier: the subscription is installed first, then
//! the commits that readers will see are noted, then the retained messages are replayed from the
//! store; live messages that the note covers are dropped for this filter, and what comes live
//! afterwards queues behind the replay. So whoever subscribes and then publishes to itself has
//! seen every retained match when its own message comes back.

use std::collections::HashMap;
use std::sync::Arc;

use edgebus_bus::{filter, limits};

use super::{Conn, End};
use crate::broker::Watermark;
use crate::codec::{
    Packet, Properties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck,
    Unsubscribe, Version, topic,
};
use crate::store::{Job, Wish};

/// Changed topics that a replay ran ahead of; more than ever happen in one replay.
const AHEAD: usize = 10_000;

/// One subscription of a connection.
pub struct Sub {
    pub wish: Wish,
    /// Live messages up to here are older than the replay.
    pub from: Watermark,
    /// Messages that the replay delivered although they are newer than `from`: their live copies
    /// are not delivered again.
    ahead: HashMap<Arc<str>, u64>,
}

impl Sub {
    fn new(wish: Wish) -> Self {
        Self {
            wish,
            from: Watermark::default(),
            ahead: HashMap::new(),
        }
    }

    /// One that the session had before.
    pub fn resumed(wish: Wish) -> Self {
        Self::new(wish)
    }

    /// The replay delivers this one.
    pub fn replayed(&mut self, name: &Arc<str>, commit: u64) {
        if !self.from.covers(commit) && self.ahead.len() < AHEAD {
            self.ahead.insert(name.clone(), commit);
        }
    }

    /// Whether a live message is news to this subscription.
    pub fn is_news(&mut self, name: &str, commit: u64) -> bool {
        if commit == 0 {
            return true;
        }
        if self.from.covers(commit) {
            return false;
        }
        match self.ahead.get(name) {
            Some(replayed) if commit < *replayed => false,
            Some(replayed) => {
                let same = commit == *replayed;
                self.ahead.remove(name);
                !same
            }
            None => true,
        }
    }
}

impl Conn {
    pub(super) async fn subscribe(&mut self, packet: Subscribe) -> Result<(), End> {
        let id = packet.properties.subscription_ids.first().copied();
        let mut reasons = Vec::with_capacity(packet.filters.len());
        let mut replays = Vec::new();
        let mut whys = Vec::new();
        for wanted in packet.filters {
            match self.install(wanted, id.unwrap_or(0)).await {
                Ok((qos, replay)) => {
                    reasons.push(qos.granted());
                    replays.extend(replay);
                }
                Err((reason, why)) => {
                    tracing::info!(client = %self.key, why, "a subscription is refused");
                    reasons.push(reason);
                    whys.push(why);
                }
            }
        }
        let mut properties = Properties::NONE;
        if !whys.is_empty() && self.version == Version::V5 && self.explain {
            properties.reason_string = Some(whys.join("; "));
        }
        if !whys.is_empty() {
            self.note_refusal("a subscription", &whys.join("; ")).await;
        }
        self.output.put(&Packet::SubAck(SubAck {
            packet_id: packet.packet_id,
            properties,
            reasons,
        }));
        for filter in replays {
            self.start_replay(&filter).await?;
        }
        Ok(())
    }

    /// Installs one subscription; returns the QoS granted and the filter if its retained
    /// messages are wanted.
    async fn install(
        &mut self,
        wanted: Subscription,
        id: u32,
    ) -> Result<(QoS, Option<Arc<str>>), (ReasonCode, String)> {
        if topic::is_shared(&wanted.filter) {
            let why = format!(
                "{:?}: shared subscriptions are not supported",
                wanted.filter
            );
            return Err((ReasonCode::SharedSubscriptionsNotSupported, why));
        }
        if let Err(error) = filter::check_filter(&wanted.filter) {
            let why = format!("filter {:?}: {error}", wanted.filter);
            return Err((ReasonCode::TopicFilterInvalid, why));
        }
        if let Err(error) = self.rules.identity().may_subscribe(&wanted.filter) {
            return Err((ReasonCode::NotAuthorized, error.to_string()));
        }
        let known = self.subs.contains_key(wanted.filter.as_str());
        if !known && self.subs.len() >= limits::FILTERS_PER_CLIENT {
            let why = format!(
                "a client has at most {} filters",
                limits::FILTERS_PER_CLIENT
            );
            return Err((ReasonCode::QuotaExceeded, why));
        }
        let wish = Wish {
            filter: wanted.filter.into(),
            qos: wanted.qos.min(QoS::AtLeastOnce),
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            id,
        };
        let replay = match wanted.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !known,
            RetainHandling::DoNotSend => false,
        };
        let installed = if let Some(link) = &self.link {
            let added = self.broker.router.subscribe(link.id(), &wish.filter).await;
            added.map(drop).map_err(|e| e.to_string())
        } else {
            let added = self.broker.store.ask(|reply| Job::Subscribe {
                session: self.session,
                wish: wish.clone(),
                replay,
                reply,
            });
            added.await.map(drop).map_err(|e| e.to_string())
        };
        if let Err(why) = installed {
            return Err((ReasonCode::UnspecifiedError, why));
        }
        let (filter, qos) = (wish.filter.clone(), wish.qos);
        match self.subs.get_mut(&filter) {
            Some(sub) => sub.wish = wish,
            None => {
                self.subs.insert(filter.clone(), Sub::new(wish));
            }
        }
        Ok((qos, replay.then_some(filter)))
    }

    /// Queues the replay of a subscription that is installed.
    pub(super) async fn start_replay(&mut self, filter: &Arc<str>) -> Result<(), End> {
        let from = self.broker.watermark();
        let overlaps = |other: &&Arc<str>| *other != filter && filter::overlap(other, filter);
        if self.subs.keys().any(|other| overlaps(&other)) {
            // Another subscription gets the same messages: what the note covers goes before
            // the replay, so that no topic is seen to go back in time.
            self.broker.fence().await;
        }
        if let Some(sub) = self.subs.get_mut(filter) {
            sub.from = from;
            sub.ahead.clear();
        }
        self.take_live().await?;
        self.outbox.cancel_replay(filter);
        if matches!(&self.load, Some(load) if load.is_for(filter)) {
            self.load = None;
        }
        self.outbox.push_replay(filter.clone());
        Ok(())
    }

    pub(super) async fn unsubscribe(&mut self, packet: Unsubscribe) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(packet.filters.len());
        for wanted in packet.filters {
            if self.inbox && self.subs.contains_key(wanted.as_str()) {
                // An inbox misses nothing, whatever its reader says.
                reasons.push(ReasonCode::NotAuthorized);
                continue;
            }
            let Some((filter, _)) = self.subs.remove_entry(wanted.as_str()) else {
                reasons.push(ReasonCode::NoSubscriptionExisted);
                continue;
            };
            self.take_live().await?;
            self.outbox.cancel_replay(&filter);
            if matches!(&self.load, Some(load) if load.is_for(&filter)) {
                self.load = None;
            }
            let removed = if let Some(link) = &self.link {
                let gone = self.broker.router.unsubscribe(link.id(), &filter).await;
                gone.map(drop).map_err(|e| e.to_string())
            } else {
                let gone = self.broker.store.ask(|reply| Job::Unsubscribe {
                    session: self.session,
                    filter: filter.clone(),
                    reply,
                });
                gone.await.map(drop).map_err(|e| e.to_string())
            };
            reasons.push(match removed {
                Ok(()) => ReasonCode::Success,
                Err(why) => {
                    tracing::warn!(client = %self.key, why, "a subscription was not removed");
                    ReasonCode::UnspecifiedError
                }
            });
        }
        self.output.put(&Packet::UnsubAck(UnsubAck {
            packet_id: packet.packet_id,
            properties: Properties::NONE,
            reasons,
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_messages_that_the_replay_covers_are_no_news() {
        let mut sub = Sub::new(Wish {
            filter: "a/#".into(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            id: 0,
        });
        sub.from = Watermark { disk: 5, memory: 0 };
        sub.replayed(&"a/x".into(), 5);
        sub.replayed(&"a/y".into(), 8);
        assert!(sub.is_news("a/z", 0), "a passing message is always news");
        assert!(!sub.is_news("a/x", 5));
        assert!(sub.is_news("a/x", 6));
        assert!(!sub.is_news("a/y", 7), "older than what was replayed");
        assert!(!sub.is_news("a/y", 8), "the same as was replayed");
        assert!(sub.is_news("a/y", 9));
    }
}
