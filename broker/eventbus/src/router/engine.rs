//! rumqttd's Router as a matching engine. The only module that names the crate.
//!
//! It holds one local link. Filters are subscribed with our [`FilterId`] as the subscription
//! identifier, which comes back on each forwarded publish and says what matched. Payloads are
//! 8-byte references. Topics get a prefix: `t/` for ordinary ones, `d/` for those that begin
//! with `$`, which rumqttd would refuse; it also keeps `#` from matching these, and hides a
//! first character that is not ASCII, which would end the Router's thread.
//!
//! Ordering relies on what 0.20 does: packets of one link are handled in their order, waiting
//! requests are queued in the order in which their logs got data, and each request reads its
//! whole log. So the fence, last in a batch and on a filter of its own, is forwarded last.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe, SubscribeProperties, Unsubscribe,
};
use rumqttd::{Notification, RouterConfig};

use super::limits::{SEGMENT_BYTES, SEGMENTS};
use super::table::FilterId;

/// How long a batch may take before the Router counts as hung. Batches take well under 10 ms
/// on a small gateway; a suspended machine only costs a needless replacement.
const PATIENCE: Duration = Duration::from_secs(5);
/// The private topics and filters of fences, used in turn: without our prefix, so that no
/// client reaches them. Two, because the request that hits rumqttd's bound of notifications is
/// queued again at once, ahead of the next batch; were it the fence's, the next fence would
/// overtake its batch.
const FENCES: [&str; 2] = ["f/0", "f/1"];
/// Ends the Router's thread in any build: it slices the first byte off a two-byte character.
const POISON: &str = "é";

/// A message matched a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub(super) seq: u64,
    pub(super) filter: FilterId,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("rumqttd's Router could not be started")]
    Start,
    #[error("rumqttd's Router ended")]
    Ended,
    #[error("rumqttd's Router did not answer within {PATIENCE:?}")]
    Hung,
}

pub(super) struct Engine {
    tx: LinkTx,
    rx: LinkRx,
    generation: usize,
    fences: u64,
    /// Filters subscribed since the last wait.
    unsettled: usize,
}

impl Engine {
    /// Starts a Router that matches `filters`.
    pub(super) async fn start<'a>(
        filters: impl Iterator<Item = (&'a str, FilterId)>,
    ) -> Result<Self, EngineError> {
        static GENERATION: AtomicUsize = AtomicUsize::new(0);
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        quiet_retired_threads();
        let config = RouterConfig {
            max_connections: 1,
            max_outgoing_packet_count: 1 << 20,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        // Building a link waits for the Router's thread.
        let start = tokio::task::spawn_blocking(move || {
            let router = rumqttd::Router::new(generation, config).spawn();
            LinkBuilder::new("front", router).build().ok()
        });
        let built = tokio::time::timeout(PATIENCE, start).await;
        let Ok(Ok(Some((tx, rx, _)))) = built else {
            return Err(EngineError::Start);
        };
        let mut engine = Self {
            tx,
            rx,
            generation,
            fences: 0,
            unsettled: 0,
        };
        for fence in FENCES {
            // No real filter has this id: the table counts from 1 and never gets here.
            engine.push(subscribe(fence.to_owned(), usize::MAX));
        }
        // First the fences alone, so that both wait when the filters' acknowledgements fill the
        // buffer of notifications.
        engine.flush(&mut Vec::new()).await?;
        for (filter, id) in filters {
            engine.subscribe(filter, id).await?;
        }
        engine.flush(&mut Vec::new()).await?;
        Ok(engine)
    }

    fn push(&self, packet: Packet) {
        self.tx.buffer().push_back(packet);
    }

    /// Only at the start of a batch: rumqttd forgets to drop a request that has just been
    /// woken.
    pub(super) fn unsubscribe(&mut self, filter: &str) {
        let filters = vec![prefixed_filter(filter)];
        self.push(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None));
    }

    /// Only ahead of a batch's messages. Now and then it waits for the engine, because a debug
    /// build of rumqttd looks at all new filters for each.
    pub(super) async fn subscribe(
        &mut self,
        filter: &str,
        id: FilterId,
    ) -> Result<(), EngineError> {
        self.push(subscribe(prefixed_filter(filter), id.0));
        self.unsettled += 1;
        if self.unsettled >= 64 {
            self.unsettled = 0;
            self.flush(&mut Vec::new()).await?;
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, topic: &str, seq: u64) {
        let (topic, payload) = reference(topic, seq);
        self.push(Packet::Publish(Publish::new(topic, payload, false), None));
    }

    pub(super) fn poison(&mut self) {
        let publish = Publish::new(POISON, "", false);
        self.push(Packet::Publish(publish, None));
    }

    /// Sends the batch and collects what matched until its fence is back. Hits come grouped by
    /// filter, not in the order of sequences. After an error the engine is of no further use.
    pub(super) async fn flush(&mut self, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.fences += 1;
        let topic = FENCES[(self.fences % 2) as usize];
        let fence = Bytes::copy_from_slice(&self.fences.to_be_bytes());
        let publish = Publish::new(Bytes::from_static(topic.as_bytes()), fence.clone(), false);
        let sent = self.tx.send(Packet::Publish(publish, None)).await;
        sent.map_err(|_| EngineError::Ended)?;
        tokio::time::timeout(PATIENCE, self.collect(&fence, hits))
            .await
            .map_err(|_| EngineError::Hung)?
    }

    async fn collect(&mut self, fence: &Bytes, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        loop {
            let next = self.rx.next().await.map_err(|_| EngineError::Ended)?;
            match next {
                Some(Notification::Forward(forward)) => {
                    if forward.publish.topic.starts_with(b"f/") {
                        if forward.publish.payload == *fence {
                            return Ok(());
                        }
                        continue;
                    }
                    let filters = forward
                        .properties
                        .map(|p| p.subscription_identifiers)
                        .unwrap_or_default();
                    if let Ok(seq) = <[u8; 8]>::try_from(&forward.publish.payload[..]) {
                        let seq = u64::from_be_bytes(seq);
                        hits.extend(filters.into_iter().map(|id| Hit {
                            seq,
                            filter: FilterId(id),
                        }));
                    }
                }
                // It stops after 200 notifications until it is told that they were taken.
                Some(Notification::Unschedule) => {
                    self.rx.ready().map_err(|_| EngineError::Ended)?;
                }
                _ => {}
            }
        }
    }

    /// Ends the Router. Its thread holds a sender to itself and would wait for ever, so it is
    /// fed the topic that ends it; dropping what it holds frees its memory.
    pub(super) async fn retire(mut self) {
        retired().insert(self.generation);
        self.poison();
        let publish = Publish::new(FENCES[0], "", false);
        if self.tx.send(Packet::Publish(publish, None)).await.is_err() {
            retired().remove(&self.generation);
        }
    }
}

fn subscribe(path: String, id: usize) -> Packet {
    let filter = Filter {
        path,
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let properties = SubscribeProperties {
        id: Some(id),
        user_properties: Vec::new(),
    };
    let filters = vec![filter];
    Packet::Subscribe(Subscribe { pkid: 1, filters }, Some(properties))
}

fn prefix(topic_or_filter: &str) -> &'static str {
    if topic_or_filter.starts_with('$') {
        "d/"
    } else {
        "t/"
    }
}

fn prefixed_filter(filter: &str) -> String {
    format!("{}{filter}", prefix(filter))
}

/// Topic and payload in one allocation.
fn reference(topic: &str, seq: u64) -> (Bytes, Bytes) {
    let mut bytes = BytesMut::with_capacity(8 + 2 + topic.len());
    bytes.put_u64(seq);
    bytes.put_slice(prefix(topic).as_bytes());
    bytes.put_slice(topic.as_bytes());
    let payload = bytes.split_to(8).freeze();
    (bytes.freeze(), payload)
}

/// Generations that were told to end and have not yet.
fn retired() -> std::sync::MutexGuard<'static, BTreeSet<usize>> {
    static RETIRED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
    RETIRED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the panic of a Router that we retire off standard error. All others are reported as
/// before.
fn quiet_retired_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let generation = thread
                .name()
                .and_then(|name| name.strip_prefix("router-"))
                .and_then(|generation| generation.parse().ok());
            if !generation.is_some_and(|generation| retired().remove(&generation)) {
                report(info);
            }
        }));
    });
}
