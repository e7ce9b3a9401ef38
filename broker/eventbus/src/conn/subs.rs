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

    /// The replay delivers this one; true if it is ahead of its live copy.
    pub fn replayed(&mut self, name: &Arc<str>, commit: u64) -> bool {
        let ahead = !self.from.covers(commit) && self.ahead.len() < AHEAD;
        if ahead {
            self.ahead.insert(name.clone(), commit);
        }
        ahead
    }

    /// Whether the replay has delivered this message or a newer one of its topic. To be asked
    /// when a live message's turn has come, because the replay may run ahead while it waits.
    fn overtook(&mut self, name: &str, commit: u64) -> bool {
        let Some(replayed) = self.ahead.get(name).copied() else {
            return false;
        };
        if commit >= replayed {
            // Its live copy: what comes after is news again.
            self.ahead.remove(name);
        }
        commit <= replayed
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
        if self.session != 0 {
            // What passed the store by before this subscription stood is in memory now.
            self.broker.spine_fence().await;
        }
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

    /// Whether replays have delivered a message that waited behind them, or a newer one of its
    /// topic, to every subscription that it is for.
    pub(super) fn overtaken(&mut self, name: &str, commit: u64) -> bool {
        if !self.ahead || commit == 0 {
            return false;
        }
        let (mut overtaken, mut others) = (false, false);
        for sub in self.subs.values_mut() {
            if sub.from.covers(commit) || !topic::matches(&sub.wish.filter, name) {
                continue;
            }
            if sub.overtook(name, commit) {
                overtaken = true;
            } else {
                others = true;
            }
        }
        self.ahead = self.subs.values().any(|sub| !sub.ahead.is_empty());
        overtaken && !others
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
        assert!(!sub.replayed(&"a/x".into(), 5));
        assert!(sub.replayed(&"a/y".into(), 8));
        assert!(sub.from.covers(5) && !sub.from.covers(6) && !sub.from.covers(0));
        assert!(!sub.overtook("a/x", 6));
        assert!(sub.overtook("a/y", 7), "older than what was replayed");
        assert!(sub.overtook("a/y", 8), "the same as was replayed");
        assert!(!sub.overtook("a/y", 9));
    }
}
