//! The receiving half: what is held here, what the other end says should be, and when that is durable.
//!
//! An [`Act::Apply`] or [`Act::Remove`] asks the caller to make something durable; the acknowledgement
//! leaves only with [`Receiver::done`]. Nothing is removed because a list was short: a removal is explicit
//! (`Del`) or follows from a manifest whose sender said it is complete.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::events::EventInbox;
use crate::frame::limits;
use crate::{Act, Code, Digest, Entry, Frame, Hash, Kind, Lane, Put, Ticket};

/// What the session is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// It is for the caller.
    Do(Act),
    Send(Frame),
    /// The other end broke the rules; the connection is to be closed.
    Broken {
        why: String,
    },
}

#[derive(Debug, Default)]
struct KindState {
    held: BTreeMap<Arc<str>, (String, Hash)>,
    digest: Digest,
    /// Effects of this connection without a result.
    pending: usize,
    same: Option<Digest>,
    listing: BTreeMap<Arc<str>, (String, Hash)>,
    /// The part of a manifest that comes next.
    next_part: u32,
    /// Numbers ascend within a kind: an older one was seen before.
    last_seq: u64,
}

impl KindState {
    fn put(&mut self, topic: &Arc<str>, uid: String, hash: Hash) {
        self.digest.add(topic, &uid, &hash);
        if let Some((uid, hash)) = self.held.insert(topic.clone(), (uid, hash)) {
            self.digest.remove(topic, &uid, &hash);
        }
    }

    fn take(&mut self, topic: &str) {
        if let Some((uid, hash)) = self.held.remove(topic) {
            self.digest.remove(topic, &uid, &hash);
        }
    }

    /// What is there is not known any more: it differs from everything until it is written again.
    fn doubt(&mut self, topic: &Arc<str>) {
        let uid = self
            .held
            .get(topic)
            .map(|(uid, _)| uid.clone())
            .unwrap_or_default();
        self.put(topic, uid, Hash::UNKNOWN);
    }
}

#[derive(Debug)]
enum Work {
    Put(Put),
    Del { seq: Option<u64>, uid: String },
}

#[derive(Debug)]
struct Pending {
    kind: Kind,
    topic: Arc<str>,
    /// None for removals that follow from a manifest.
    seq: Option<u64>,
    /// None for removals.
    version: Option<(String, Hash)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Receiver {
    kinds: BTreeMap<Kind, KindState>,
    pending: BTreeMap<Ticket, Pending>,
    /// Topics with an effect under way, and what came for them since.
    busy: BTreeMap<(Kind, Arc<str>), VecDeque<Work>>,
    waiting: usize,
    events: EventInbox,
    last_ticket: u64,
}

/// More than any lane's budget allows a well-behaved sender to have outstanding.
const WAITING_MAX: usize = 4096;

impl Receiver {
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// Something found in the store at start.
    pub fn load(&mut self, kind: &Kind, topic: &str, uid: &str, hash: Hash) {
        let state = self.kinds.entry(kind.clone()).or_default();
        state.put(&Arc::from(topic), uid.to_owned(), hash);
    }

    /// The store was lost or is read anew.
    pub fn clear(&mut self) {
        *self = Receiver {
            last_ticket: self.last_ticket,
            ..Receiver::default()
        };
    }

    /// For `Hello`.
    pub fn have(&self) -> BTreeMap<Kind, Digest> {
        let kinds = self
            .kinds
            .iter()
            .filter(|(_, state)| !state.held.is_empty());
        kinds
            .map(|(kind, state)| (kind.clone(), state.digest))
            .take(limits::HAVE_ITEMS)
            .collect()
    }

    /// What is held of a kind: topic, uid, hash.
    pub fn held(&self, kind: &Kind) -> impl Iterator<Item = (&str, &str, &Hash)> {
        self.kinds.get(kind).into_iter().flat_map(|s| {
            s.held
                .iter()
                .map(|(t, (uid, hash))| (t.as_ref(), uid.as_str(), hash))
        })
    }

    /// Digest of what is held of a kind.
    pub fn digest(&self, kind: &Kind) -> Digest {
        self.kinds.get(kind).map_or(Digest::EMPTY, |s| s.digest)
    }

    /// uid of what is held on a topic.
    pub fn uid(&self, kind: &Kind, topic: &str) -> Option<&str> {
        self.kinds
            .get(kind)?
            .held
            .get(topic)
            .map(|(uid, _)| uid.as_str())
    }

    /// Effects without a result.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The connection is gone. Effects under way end somewhere out of sight, so their topics are in doubt.
    pub(crate) fn disconnected(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let events = Lane::of(&pending.kind) == Lane::Event;
            if let (false, Some(state)) = (events, self.kinds.get_mut(&pending.kind)) {
                state.doubt(&pending.topic);
            }
        }
        self.busy.clear();
        self.waiting = 0;
        self.events = EventInbox::default();
        for state in self.kinds.values_mut() {
            state.pending = 0;
            state.same = None;
            state.listing.clear();
            state.next_part = 0;
            state.last_seq = 0;
        }
    }

    pub(crate) fn on_put(&mut self, put: Put) -> Vec<Effect> {
        if put.seq == 0 {
            return vec![Effect::Do(Act::Beat { put })];
        }
        if self.waiting + self.pending.len() >= WAITING_MAX {
            let why =
                format!("more than {WAITING_MAX} frames without waiting for their acknowledgement");
            return vec![Effect::Broken { why }];
        }
        if Lane::of(&put.kind) == Lane::Event {
            return match self.events.on_put(put) {
                Ok(next) => next.map(|put| self.apply_event(put)).into_iter().collect(),
                Err(why) => vec![Effect::Broken { why }],
            };
        }
        if self.is_repeat(&put.kind, put.seq) {
            return Vec::new();
        }
        let (kind, topic) = (put.kind.clone(), Arc::from(put.topic.as_str()));
        self.work(kind, topic, Work::Put(put))
    }

    pub(crate) fn on_del(&mut self, seq: u64, kind: Kind, topic: &str, uid: String) -> Vec<Effect> {
        if self.waiting + self.pending.len() >= WAITING_MAX {
            let why =
                format!("more than {WAITING_MAX} frames without waiting for their acknowledgement");
            return vec![Effect::Broken { why }];
        }
        if self.is_repeat(&kind, seq) {
            return Vec::new();
        }
        self.work(
            kind,
            Arc::from(topic),
            Work::Del {
                seq: Some(seq),
                uid,
            },
        )
    }

    /// A chunk of a list. With the last one, what differs is asked for; what a complete list lacks is removed.
    pub(crate) fn on_manifest(
        &mut self,
        kind: Kind,
        part: u32,
        complete: bool,
        last: bool,
        entries: Vec<Entry>,
    ) -> Vec<Effect> {
        let state = self.kinds.entry(kind.clone()).or_default();
        state.same = None;
        if part == 0 {
            state.listing.clear();
        } else if part != state.next_part {
            // A tail taken for a whole list would delete everything before it.
            let why = format!(
                "part {part} of the manifest of {kind}, expected {}",
                state.next_part
            );
            return vec![Effect::Broken { why }];
        }
        state.next_part = if last { 0 } else { part.saturating_add(1) };
        for entry in entries {
            state
                .listing
                .insert(Arc::from(entry.topic), (entry.uid, entry.hash));
        }
        if state.listing.len() > limits::MANIFEST_ITEMS {
            let why = format!(
                "a manifest of {kind} with more than {} entries",
                limits::MANIFEST_ITEMS
            );
            return vec![Effect::Broken { why }];
        }
        if !last {
            return Vec::new();
        }
        let listed = std::mem::take(&mut state.listing);
        let differs = |(topic, version): &(&Arc<str>, &(String, Hash))| {
            state.held.get(topic.as_ref()) != Some(version)
        };
        let wanted: Vec<String> = listed
            .iter()
            .filter(differs)
            .map(|(topic, _)| topic.to_string())
            .collect();
        let gone: Vec<Arc<str>> = if complete {
            state
                .held
                .keys()
                .filter(|t| !listed.contains_key(*t))
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        let mut effects = Vec::new();
        let mut chunks = wanted.chunks(limits::LIST_ITEMS).peekable();
        if chunks.peek().is_none() {
            effects.push(want(&kind, true, &[]));
        }
        while let Some(chunk) = chunks.next() {
            effects.push(want(&kind, chunks.peek().is_none(), chunk));
        }
        for topic in gone {
            let work = Work::Del {
                seq: None,
                uid: String::new(),
            };
            effects.extend(self.work(kind.clone(), topic, work));
        }
        effects
    }

    /// The other end believes that all of a kind is held here.
    pub(crate) fn on_same(&mut self, kind: &Kind, digest: Digest) -> Vec<Effect> {
        self.kinds.entry(kind.clone()).or_default().same = Some(digest);
        self.confirm(kind).into_iter().collect()
    }

    /// The effect is durable.
    pub(crate) fn done(&mut self, ticket: Ticket) -> Vec<Effect> {
        let Some(pending) = self.pending.remove(&ticket) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        if let Some(seq) = pending.seq {
            effects.push(Effect::Send(Frame::Ack { seq }));
        }
        if Lane::of(&pending.kind) == Lane::Event {
            let next = self.events.done();
            effects.extend(next.map(|put| self.apply_event(put)));
            return effects;
        }
        let state = self.kinds.entry(pending.kind.clone()).or_default();
        match pending.version {
            Some((uid, hash)) => state.put(&pending.topic, uid, hash),
            None => state.take(&pending.topic),
        }
        self.finish(pending.kind, pending.topic, effects)
    }

    /// The effect did not happen (`permanent`: and never can), or nobody knows whether it did.
    pub(crate) fn failed(
        &mut self,
        ticket: Ticket,
        code: Code,
        why: String,
        permanent: bool,
    ) -> Vec<Effect> {
        let Some(pending) = self.pending.remove(&ticket) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        if let Some(seq) = pending.seq {
            effects.push(Effect::Send(Frame::Nack {
                seq,
                code,
                why,
                permanent,
            }));
        }
        if Lane::of(&pending.kind) == Lane::Event {
            let next = if permanent {
                self.events.done()
            } else {
                self.events.refused();
                None
            };
            effects.extend(next.map(|put| self.apply_event(put)));
            return effects;
        }
        if !permanent {
            self.kinds
                .entry(pending.kind.clone())
                .or_default()
                .doubt(&pending.topic);
        }
        self.finish(pending.kind, pending.topic, effects)
    }

    /// The answer to the first one is given or under way.
    fn is_repeat(&mut self, kind: &Kind, seq: u64) -> bool {
        let state = self.kinds.entry(kind.clone()).or_default();
        let repeat = seq <= state.last_seq;
        state.last_seq = state.last_seq.max(seq);
        repeat
    }

    fn work(&mut self, kind: Kind, topic: Arc<str>, work: Work) -> Vec<Effect> {
        let key = (kind, topic);
        if let Some(later) = self.busy.get_mut(&key) {
            later.push_back(work);
            self.waiting += 1;
            return Vec::new();
        }
        self.begin(key.0, key.1, work).into_iter().collect()
    }

    /// Starts one piece of work on a free topic; answers at once what changes nothing.
    fn begin(&mut self, kind: Kind, topic: Arc<str>, work: Work) -> Option<Effect> {
        let state = self.kinds.entry(kind.clone()).or_default();
        state.same = None;
        let held = state.held.get(&topic);
        let ticket = Ticket(self.last_ticket + 1);
        let (pending, effect) = match work {
            Work::Put(put) => {
                let same = |(uid, hash): &(String, Hash)| *uid == put.uid && *hash == put.hash;
                if put.hash != Hash::UNKNOWN && held.is_some_and(same) {
                    return Some(Effect::Send(Frame::Ack { seq: put.seq }));
                }
                let version = Some((put.uid.clone(), put.hash));
                let pending = Pending {
                    kind: kind.clone(),
                    topic: topic.clone(),
                    seq: Some(put.seq),
                    version,
                };
                (pending, Effect::Do(Act::Apply { ticket, put }))
            }
            Work::Del { seq, uid } => {
                let other = |held: &str| !uid.is_empty() && !held.is_empty() && held != uid;
                let held = held.filter(|(held, _)| !other(held));
                let Some((held, _)) = held else {
                    return seq.map(|seq| Effect::Send(Frame::Ack { seq }));
                };
                let uid = held.clone();
                let pending = Pending {
                    kind: kind.clone(),
                    topic: topic.clone(),
                    seq,
                    version: None,
                };
                let effect = Effect::Do(Act::Remove {
                    ticket,
                    kind: kind.clone(),
                    topic: topic.clone(),
                    uid,
                });
                (pending, effect)
            }
        };
        self.last_ticket += 1;
        state.pending += 1;
        self.pending.insert(ticket, pending);
        self.busy.insert((kind, topic), VecDeque::new());
        Some(effect)
    }

    /// A topic is free again: what came for it meanwhile goes on.
    fn finish(&mut self, kind: Kind, topic: Arc<str>, mut effects: Vec<Effect>) -> Vec<Effect> {
        if let Some(state) = self.kinds.get_mut(&kind) {
            state.pending = state.pending.saturating_sub(1);
        }
        let mut later = self
            .busy
            .remove(&(kind.clone(), topic.clone()))
            .unwrap_or_default();
        while let Some(work) = later.pop_front() {
            self.waiting = self.waiting.saturating_sub(1);
            effects.extend(self.begin(kind.clone(), topic.clone(), work));
            if let Some(queue) = self.busy.get_mut(&(kind.clone(), topic.clone())) {
                *queue = later;
                return effects;
            }
        }
        effects.extend(self.confirm(&kind));
        effects
    }

    fn confirm(&mut self, kind: &Kind) -> Option<Effect> {
        let state = self.kinds.get_mut(kind)?;
        if state.pending > 0 {
            return None;
        }
        let digest = state.same.take()?;
        if digest == state.digest {
            return Some(Effect::Do(Act::Synced {
                kind: kind.clone(),
                digest,
            }));
        }
        Some(Effect::Send(Frame::Have {
            kind: kind.clone(),
            digest: state.digest,
        }))
    }

    fn apply_event(&mut self, put: Put) -> Effect {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let pending = Pending {
            kind: put.kind.clone(),
            topic: Arc::from(put.topic.as_str()),
            seq: Some(put.seq),
            version: None,
        };
        self.pending.insert(ticket, pending);
        Effect::Do(Act::Apply { ticket, put })
    }

    /// Kinds of which anything is held.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        let held = self
            .kinds
            .iter()
            .filter(|(_, state)| !state.held.is_empty());
        held.map(|(kind, _)| kind.clone()).collect()
    }
}

fn want(kind: &Kind, last: bool, topics: &[String]) -> Effect {
    Effect::Send(Frame::Want {
        kind: kind.clone(),
        last,
        topics: topics.to_vec(),
    })
}
