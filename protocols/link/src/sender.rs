//! The sending half: what the other end should hold, what it is known to hold, and the shortest way between.
//!
//! Per kind: compare digests, list if they differ, then send what differs. Per topic: at most one frame in
//! flight, so a burst of changes collapses into the newest one and order needs no care. A transient refusal
//! backs off that topic alone; a permanent one counts as settled until the content changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::limits;
use crate::item::check;
use crate::kind_state::{Flight, KindState, Known, Phase, listing};
use crate::lane::Used;
use crate::{Act, Budgets, Code, Digest, Frame, Hash, Item, Kind, Lane, Put, TooLarge};

const FIRST_RETRY_MS: u64 = 200;
const LAST_RETRY_MS: u64 = 30_000;
const FIRST_RELIST_MS: u64 = 1_000;
const LAST_RELIST_MS: u64 = 300_000;
/// A chunk of a manifest stays well below a frame.
const CHUNK_BYTES: usize = 128 << 10;

/// See the module.
#[derive(Debug)]
pub struct Sender {
    budgets: Budgets,
    kinds: BTreeMap<Kind, KindState>,
    queues: BTreeMap<Lane, VecDeque<(Kind, Arc<str>)>>,
    used: BTreeMap<Lane, Used>,
    flights: BTreeMap<u64, Flight>,
    beats: BTreeMap<(Kind, Arc<str>), Bytes>,
    /// What the other end said it holds; None while there is no connection.
    have: Option<BTreeMap<Kind, Digest>>,
}

impl Sender {
    pub fn new(budgets: Budgets) -> Sender {
        Sender {
            budgets,
            kinds: BTreeMap::new(),
            queues: BTreeMap::new(),
            used: BTreeMap::new(),
            flights: BTreeMap::new(),
            beats: BTreeMap::new(),
            have: None,
        }
    }

    /// The object on `topic` should be this.
    pub fn set(&mut self, kind: &Kind, topic: &str, item: Item) -> Result<(), TooLarge> {
        check(topic, &item)?;
        let state = self
            .kinds
            .entry(kind.clone())
            .or_insert_with(KindState::new);
        if state.desired.len() >= limits::MANIFEST_ITEMS && !state.desired.contains_key(topic) {
            return Err(TooLarge {
                topic: topic.to_owned(),
                what: "the list of its kind, with one more entry,",
                size: state.desired.len() + 1,
                allowed: limits::MANIFEST_ITEMS,
            });
        }
        let topic: Arc<str> = Arc::from(topic);
        state.digest.add(&topic, &item.uid, &item.hash);
        if let Some(old) = state.desired.insert(topic.clone(), item) {
            state.digest.remove(&topic, &old.uid, &old.hash);
        }
        self.touch(kind, &topic);
        Ok(())
    }

    /// There should be nothing on `topic`: an explicit deletion.
    pub fn remove(&mut self, kind: &Kind, topic: &str) {
        let Some(state) = self.kinds.get_mut(kind) else {
            return;
        };
        let Some((topic, old)) = state.desired.remove_entry(topic) else {
            return;
        };
        state.digest.remove(&topic, &old.uid, &old.hash);
        if matches!(state.phase, Phase::Live) && !state.peer.contains_key(&topic) {
            // Whether the other end holds it is unknown where no complete list was compared yet.
            let known = Known {
                settled: (old.uid, Hash::UNKNOWN),
                held: None,
            };
            state.learn(&topic, Some(known));
        }
        self.touch(kind, &topic);
    }

    /// The whole list of a kind, known to be complete: what is not in it is to be deleted. Items that are too
    /// large to travel are left out and returned.
    pub fn replace(
        &mut self,
        kind: &Kind,
        items: impl IntoIterator<Item = (String, Item)>,
    ) -> Vec<TooLarge> {
        let mut refused = Vec::new();
        let mut keep = BTreeSet::new();
        for (topic, item) in items {
            let same = self.get(kind, &topic) == Some(&item);
            if !same && let Err(error) = self.set(kind, &topic, item) {
                refused.push(error);
            } else {
                keep.insert(topic);
            }
        }
        let gone: Vec<Arc<str>> = self.kinds.get(kind).map_or_else(Vec::new, |state| {
            state
                .desired
                .keys()
                .filter(|t| !keep.contains(t.as_ref()))
                .cloned()
                .collect()
        });
        for topic in gone {
            self.remove(kind, &topic);
        }
        self.set_complete(kind, true);
        refused
    }

    /// Whether what was `set` of this kind is all there is. Only then may the other end infer deletions.
    pub fn set_complete(&mut self, kind: &Kind, complete: bool) {
        let state = self
            .kinds
            .entry(kind.clone())
            .or_insert_with(KindState::new);
        if complete && !state.complete {
            state.same_sent = false;
        }
        state.complete = complete;
        if matches!(state.phase, Phase::Listing { part: 0, .. }) {
            // Nothing of it is said yet: say it with what is known now.
            state.phase = listing(&state.desired, complete);
        }
        self.start(kind);
    }

    /// What is wanted on a topic.
    pub fn get(&self, kind: &Kind, topic: &str) -> Option<&Item> {
        self.kinds.get(kind)?.desired.get(topic)
    }

    /// Topics wanted of a kind.
    pub fn topics(&self, kind: &Kind) -> impl Iterator<Item = &str> {
        self.kinds
            .get(kind)
            .into_iter()
            .flat_map(|s| s.desired.keys().map(AsRef::as_ref))
    }

    /// A message of which only the newest counts and whose loss is harmless.
    pub fn beat(&mut self, kind: &Kind, topic: &str, body: Bytes) {
        if self.have.is_some() && body.len() <= CHUNK_BYTES {
            self.beats.insert((kind.clone(), Arc::from(topic)), body);
        }
    }

    /// Frames sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Frames and bytes a lane has in flight.
    pub fn used(&self, lane: Lane) -> (usize, usize) {
        self.used.get(&lane).map_or((0, 0), |u| (u.frames, u.bytes))
    }

    /// Nothing is left to send, nor in flight, nor waiting for a retry.
    pub fn is_settled(&self) -> bool {
        self.have.is_some()
            && self.flights.is_empty()
            && self.kinds.values().all(|s| {
                s.drained()
                    && s.relist_at.is_none()
                    && match s.phase {
                        Phase::Live => s.same_sent || !s.complete,
                        Phase::Idle => !s.complete && s.desired.is_empty(),
                        Phase::Listing { .. } => false,
                    }
            })
    }

    /// A connection stands; `have` is what the other end's `Hello` says.
    pub fn connected(&mut self, have: BTreeMap<Kind, Digest>) {
        self.disconnected();
        self.have = Some(have);
        let kinds: Vec<Kind> = self.kinds.keys().cloned().collect();
        for kind in &kinds {
            self.start(kind);
        }
    }

    /// The connection is gone; what was in flight is unknown.
    pub fn disconnected(&mut self) {
        self.have = None;
        self.flights.clear();
        self.used.clear();
        self.queues.clear();
        self.beats.clear();
        for state in self.kinds.values_mut() {
            state.forget_peer();
        }
    }

    /// Compares every kind again, as heals what no rule foresaw.
    pub fn compare_again(&mut self) {
        for state in self.kinds.values_mut() {
            state.same_sent = false;
        }
    }

    pub(crate) fn on_ack(&mut self, seq: u64) {
        let Some(flight) = self.land(seq) else {
            return;
        };
        let Some(state) = self.kinds.get_mut(&flight.kind) else {
            return;
        };
        state.retry.remove(&flight.topic);
        let known = flight.version.map(|v| Known {
            settled: v.clone(),
            held: Some(v),
        });
        state.learn(&flight.topic, known);
        self.touch(&flight.kind, &flight.topic);
    }

    pub(crate) fn on_nack(
        &mut self,
        seq: u64,
        code: Code,
        why: String,
        permanent: bool,
        now_ms: u64,
    ) -> Option<Act> {
        let Flight {
            kind,
            topic,
            version,
            ..
        } = self.land(seq)?;
        let state = self.kinds.get_mut(&kind)?;
        if permanent {
            state.retry.remove(&topic);
            let held = state.peer.get(&topic).and_then(|k| k.held.clone());
            let known = version.map(|settled| Known { settled, held });
            state.learn(&topic, known);
            self.touch(&kind, &topic);
            return Some(Act::Rejected {
                kind,
                topic,
                code,
                why,
            });
        }
        let delay = state
            .retry
            .get(&topic)
            .map_or(FIRST_RETRY_MS, |(_, delay)| *delay);
        let next = (delay * 2).min(LAST_RETRY_MS);
        state
            .retry
            .insert(topic.clone(), (now_ms.saturating_add(delay), next));
        Some(Act::Delayed {
            kind,
            topic,
            code,
            why,
        })
    }

    /// A part of the answer to a manifest.
    pub fn on_want(&mut self, kind: &Kind, last: bool, topics: Vec<String>) {
        let Some(state) = self.kinds.get_mut(kind) else {
            return;
        };
        let Phase::Listing {
            entries,
            next,
            wanted,
            ..
        } = &mut state.phase
        else {
            return;
        };
        if *next < entries.len().max(1) {
            return; // an answer before the question was complete
        }
        wanted.extend(topics.iter().map(|t| Arc::from(t.as_str())));
        if !last {
            return;
        }
        let Phase::Listing {
            entries, wanted, ..
        } = std::mem::replace(&mut state.phase, Phase::Live)
        else {
            return;
        };
        state.peer.clear();
        state.held = Digest::EMPTY;
        for entry in entries {
            let topic: Arc<str> = Arc::from(entry.topic);
            let known = if wanted.contains(&topic) {
                // It holds another version or none: not settled, so that a deletion meanwhile still travels.
                Known {
                    settled: (String::new(), Hash::UNKNOWN),
                    held: None,
                }
            } else {
                let version = (entry.uid, entry.hash);
                Known {
                    settled: version.clone(),
                    held: Some(version),
                }
            };
            state.learn(&topic, Some(known));
        }
        self.queue_all(kind);
    }

    /// The other end says what it holds: if that is not what it is known to hold, the lists are compared.
    pub fn on_have(&mut self, kind: &Kind, digest: Digest, now_ms: u64) {
        let Some(state) = self.kinds.get_mut(kind) else {
            return;
        };
        if !matches!(state.phase, Phase::Live) || state.relist_at.is_some() {
            return;
        }
        if state.drained() && digest == state.held {
            state.same_sent = false;
            return;
        }
        state.relist_at = Some(now_ms.saturating_add(state.relist_delay));
        state.relist_delay = (state.relist_delay * 2).clamp(FIRST_RELIST_MS, LAST_RELIST_MS);
    }

    /// The next frame to write, if any may be sent now. `next_seq` is the connection's counter.
    pub fn poll(&mut self, now_ms: u64, next_seq: &mut u64) -> Option<Frame> {
        self.have.as_ref()?;
        if let Some(((kind, topic), body)) = self.beats.pop_first() {
            let hash = Hash::UNKNOWN;
            let (uid, topic) = (String::new(), topic.to_string());
            return Some(Frame::Put(Put {
                seq: 0,
                kind,
                topic,
                uid,
                hash,
                body,
            }));
        }
        self.wake(now_ms);
        for lane in Lane::ALL {
            if let Some(frame) = self.poll_list(lane) {
                return Some(frame);
            }
            if let Some(frame) = self.poll_item(lane, next_seq) {
                return Some(frame);
            }
        }
        None
    }

    /// When to poll again even if nothing else happens.
    pub fn next_wake(&self) -> Option<u64> {
        self.have.as_ref()?;
        // A list that is due waits for acknowledgements, not for the clock, and so does all behind it.
        let idle = || self.kinds.values().filter(|s| !s.relist_due);
        let retries = idle().flat_map(|s| {
            s.retry
                .iter()
                .filter(|(topic, _)| !s.queued.contains(*topic) && !s.in_flight.contains(*topic))
                .map(|(_, (at, _))| *at)
        });
        let relists = idle().filter_map(|s| s.relist_at);
        retries.chain(relists).min()
    }

    /// Decides how a kind begins on this connection.
    fn start(&mut self, kind: &Kind) {
        let (Some(have), Some(state)) = (&self.have, self.kinds.get_mut(kind)) else {
            return;
        };
        if !matches!(state.phase, Phase::Idle) || (!state.complete && state.desired.is_empty()) {
            return;
        }
        let have = have.get(kind).copied().unwrap_or(Digest::EMPTY);
        if have == state.digest {
            for (topic, item) in &state.desired {
                let version = (item.uid.clone(), item.hash);
                let known = Known {
                    settled: version.clone(),
                    held: Some(version),
                };
                state.peer.insert(topic.clone(), known);
            }
            state.held = state.digest;
            state.phase = Phase::Live;
        } else if have == Digest::EMPTY {
            state.phase = Phase::Live;
            self.queue_all(kind);
        } else {
            state.phase = listing(&state.desired, state.complete);
        }
    }

    /// Something about this topic changed: it goes into its lane's queue if it must be sent.
    fn touch(&mut self, kind: &Kind, topic: &Arc<str>) {
        self.start(kind);
        let Some(state) = self.kinds.get_mut(kind) else {
            return;
        };
        let free = matches!(state.phase, Phase::Live) && !state.in_flight.contains(topic);
        if !free {
            return;
        }
        if !state.differs(topic) {
            state.retry.remove(topic);
        } else if !state.retry.contains_key(topic) && state.queued.insert(topic.clone()) {
            let entry = (kind.clone(), topic.clone());
            self.queues
                .entry(Lane::of(kind))
                .or_default()
                .push_back(entry);
        }
    }

    fn queue_all(&mut self, kind: &Kind) {
        let Some(state) = self.kinds.get(kind) else {
            return;
        };
        let topics: BTreeSet<Arc<str>> = state
            .desired
            .keys()
            .chain(state.peer.keys())
            .cloned()
            .collect();
        for topic in &topics {
            self.touch(kind, topic);
        }
    }

    fn land(&mut self, seq: u64) -> Option<Flight> {
        let flight = self.flights.remove(&seq)?;
        self.used
            .entry(Lane::of(&flight.kind))
            .or_default()
            .give(flight.bytes);
        if let Some(state) = self.kinds.get_mut(&flight.kind) {
            state.in_flight.remove(&flight.topic);
        }
        Some(flight)
    }

    /// Retries and lists whose time has come.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        for (kind, state) in &mut self.kinds {
            if !matches!(state.phase, Phase::Live) {
                continue;
            }
            state.relist_due = state.relist_at.is_some_and(|at| at <= now_ms);
            if state.relist_due {
                if state.in_flight.is_empty() {
                    state.relist_at = None;
                    state.relist_due = false;
                    state.same_sent = false;
                    state.queued.clear();
                    state.retry.clear();
                    state.phase = listing(&state.desired, state.complete);
                }
                continue;
            }
            let due = state.retry.iter().filter(|(_, (at, _))| *at <= now_ms);
            for topic in due.map(|(topic, _)| topic.clone()).collect::<Vec<_>>() {
                if !state.in_flight.contains(&topic) && state.queued.insert(topic.clone()) {
                    let queue = self.queues.entry(Lane::of(kind)).or_default();
                    queue.push_back((kind.clone(), topic));
                }
            }
        }
    }

    /// A chunk of a manifest, or the word that a kind is whole.
    fn poll_list(&mut self, lane: Lane) -> Option<Frame> {
        for (kind, state) in self
            .kinds
            .iter_mut()
            .filter(|(kind, _)| Lane::of(kind) == lane)
        {
            let all_sent = state.drained();
            match &mut state.phase {
                Phase::Listing {
                    entries,
                    complete,
                    next,
                    part,
                    ..
                } if *next < entries.len().max(1) => {
                    let rest = &entries[*next..];
                    let mut bytes = 0;
                    let fits = rest.iter().take(limits::LIST_ITEMS).take_while(|e| {
                        bytes += e.topic.len() + e.uid.len() + 48;
                        bytes <= CHUNK_BYTES
                    });
                    let chunk = fits.cloned().collect::<Vec<_>>();
                    *next += chunk.len().max(1);
                    *part += 1;
                    return Some(Frame::Manifest {
                        kind: kind.clone(),
                        part: *part - 1,
                        complete: *complete,
                        last: *next >= entries.len(),
                        entries: chunk,
                    });
                }
                Phase::Live
                    if all_sent
                        && state.complete
                        && !state.same_sent
                        && state.relist_at.is_none() =>
                {
                    state.same_sent = true;
                    return Some(Frame::Same {
                        kind: kind.clone(),
                        digest: state.held,
                    });
                }
                _ => {}
            }
        }
        None
    }

    fn poll_item(&mut self, lane: Lane, next_seq: &mut u64) -> Option<Frame> {
        let budget = self.budgets.of(lane);
        loop {
            let (kind, topic) = self.queues.get(&lane)?.front()?.clone();
            let state = self.kinds.get_mut(&kind)?;
            let live = matches!(state.phase, Phase::Live) && !state.relist_due;
            if !state.queued.contains(&topic) || !live || !state.differs(&topic) {
                // Stale: settled meanwhile, or the kind is being listed and will be queued anew.
                state.queued.remove(&topic);
                if live && !state.in_flight.contains(&topic) {
                    state.retry.remove(&topic);
                }
                self.queues.get_mut(&lane)?.pop_front();
                continue;
            }
            let bytes = state.desired.get(&topic).map_or(0, |i| i.body.len()) + topic.len() + 64;
            let used = self.used.entry(lane).or_default();
            if !used.fits(budget, bytes) {
                return None;
            }
            used.take(bytes);
            self.queues.get_mut(&lane)?.pop_front();
            state.queued.remove(&topic);
            state.in_flight.insert(topic.clone());
            *next_seq += 1;
            let seq = *next_seq;
            let item = state.desired.get(&topic);
            let version = item.map(|i| (i.uid.clone(), i.hash));
            let frame = match item {
                Some(item) => Frame::Put(Put {
                    seq,
                    kind: kind.clone(),
                    topic: topic.to_string(),
                    uid: item.uid.clone(),
                    hash: item.hash,
                    body: item.body.clone(),
                }),
                None => {
                    let known = state.peer.get(&topic);
                    let uid = known.map(|k| k.held.as_ref().unwrap_or(&k.settled).0.clone());
                    Frame::Del {
                        seq,
                        kind: kind.clone(),
                        topic: topic.to_string(),
                        uid: uid.unwrap_or_default(),
                    }
                }
            };
            self.flights.insert(
                seq,
                Flight {
                    kind,
                    topic,
                    version,
                    bytes,
                },
            );
            return Some(frame);
        }
    }
}
