//! The one task that feeds the engine and fills the links' queues, batch by batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::RouterError;
use super::engine::{Engine, EngineError, Hit};
use super::limits::{ENTRY_COUNTED, Limits, Load, SEGMENT_BYTES};
use super::link::{Link, LinkId, Offer, Queue, pair};
use super::message::{Delivery, Matched, Message};
use super::table::{FilterId, Table};
use crate::codec::topic;

/// Routers that are tried for a batch before it is matched without one.
const ATTEMPTS: usize = 2;

type Answer = oneshot::Sender<Result<bool, RouterError>>;

#[derive(Debug)]
pub(super) enum Command {
    Publish {
        seq: u64,
        message: Arc<Message>,
    },
    Link {
        queue: Queue,
        reply: oneshot::Sender<Link>,
    },
    Unlink {
        link: LinkId,
        reply: oneshot::Sender<()>,
    },
    Subscribe {
        link: LinkId,
        filter: Arc<str>,
        reply: Answer,
    },
    Unsubscribe {
        link: LinkId,
        filter: Arc<str>,
        reply: Answer,
    },
    Fence {
        reply: oneshot::Sender<()>,
    },
    /// Ends the engine's thread at this point of the batch.
    Poison,
}

impl Command {
    /// What it takes in a log of the engine.
    fn size(&self) -> usize {
        match self {
            Self::Publish { message, .. } => ENTRY_COUNTED + 2 + message.topic.len(),
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) published: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) deaths: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) unaided: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) filters: AtomicU64,
    pub(super) engine_bytes: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

fn gauge(counter: &AtomicU64, value: usize) {
    counter.store(value as u64, Ordering::Relaxed);
}

pub(super) struct Pump {
    inbox: mpsc::Receiver<Command>,
    /// Taken from the inbox, but too large for the batch before it.
    carry: Option<Command>,
    counters: Arc<Counters>,
    limits: Limits,
    table: Table,
    engine: Option<Engine>,
    load: Load,
    /// Filters that the running engine does not know yet.
    subscribe: HashMap<FilterId, Arc<str>>,
    /// Filters that the engine matches and nobody holds any more.
    unsubscribe: Vec<Arc<str>>,
    /// Whether this batch is in the engine's logs.
    crossed: bool,
    last_link: u64,
    hits: Vec<Hit>,
    receivers: Vec<(LinkId, Matched)>,
}

impl Pump {
    pub(super) fn new(
        inbox: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
        limits: Limits,
    ) -> Self {
        Self {
            inbox,
            carry: None,
            counters,
            limits,
            table: Table::default(),
            engine: None,
            load: Load::default(),
            subscribe: HashMap::new(),
            crossed: false,
            unsubscribe: Vec::new(),
            last_link: 0,
            hits: Vec::new(),
            receivers: Vec::new(),
        }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.take(&mut batch).await {
            self.hits.clear();
            self.crossed = false;
            self.intern(&batch);
            self.match_batch(&batch).await;
            self.hits.sort_unstable();
            self.apply(&mut batch);
            self.settle().await;
        }
        if let Some(engine) = self.engine.take() {
            engine.retire().await;
        }
    }

    /// Waits for a command and takes those behind it that fit the batch.
    async fn take(&mut self, batch: &mut Vec<Command>) -> bool {
        let first = match self.carry.take() {
            Some(command) => command,
            None => match self.inbox.recv().await {
                Some(command) => command,
                None => return false,
            },
        };
        let mut bytes = first.size();
        batch.push(first);
        while batch.len() < self.limits.batch {
            let Ok(command) = self.inbox.try_recv() else {
                break;
            };
            bytes += command.size();
            if bytes > SEGMENT_BYTES {
                self.carry = Some(command);
                break;
            }
            batch.push(command);
        }
        true
    }

    /// Gives ids to the filters of the batch. Those that the engine does not know are
    /// subscribed ahead of the batch, and the table decides what is delivered.
    fn intern(&mut self, batch: &[Command]) {
        for command in batch {
            if let Command::Subscribe { link, filter, .. } = command
                && self.table.has_link(*link)
                && let (id, true) = self.table.intern(filter)
                && self.engine.is_some()
            {
                self.subscribe.insert(id, filter.clone());
            }
        }
    }

    /// Fills `hits`, whatever happens to the engine.
    async fn match_batch(&mut self, batch: &[Command]) {
        let has = |what: fn(&Command) -> bool| batch.iter().filter(|c| what(c)).count();
        let publishes = has(|command| matches!(command, Command::Publish { .. }));
        let poisoned = has(|command| matches!(command, Command::Poison)) > 0;
        if publishes == 0 && !poisoned {
            return;
        }
        if !poisoned && publishes * self.table.filter_count() <= self.limits.direct {
            self.match_directly(batch);
            return;
        }
        for attempt in 0..ATTEMPTS {
            match self.ask_engine(batch, attempt == 0).await {
                Ok(()) => {
                    self.crossed = true;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the router's engine is replaced");
                    count(&self.counters.deaths, 1);
                    self.drop_engine().await;
                }
            }
        }
        count(&self.counters.unaided, 1);
        self.hits.clear();
        self.match_directly(batch);
    }

    fn match_directly(&mut self, batch: &[Command]) {
        for command in batch {
            if let Command::Publish { seq, message } = command {
                let matching = self
                    .table
                    .filters()
                    .filter(|(filter, _)| topic::matches(filter, &message.topic));
                self.hits
                    .extend(matching.map(|(_, filter)| Hit { seq: *seq, filter }));
            }
        }
    }

    async fn ask_engine(&mut self, batch: &[Command], poison: bool) -> Result<(), EngineError> {
        self.hits.clear();
        let engine = match &mut self.engine {
            Some(engine) => {
                for filter in self.unsubscribe.drain(..) {
                    engine.unsubscribe(&filter);
                    self.load.died();
                }
                for (id, filter) in self.subscribe.drain() {
                    engine.subscribe(&filter, id).await?;
                }
                engine
            }
            none => {
                self.subscribe.clear();
                self.unsubscribe.clear();
                let filters = self.table.filters().map(|(filter, id)| (&**filter, id));
                none.insert(Engine::start(filters).await?)
            }
        };
        for command in batch {
            match command {
                Command::Publish { seq, message } => engine.publish(&message.topic, *seq),
                Command::Poison if poison => engine.poison(),
                _ => {}
            }
        }
        engine.flush(&mut self.hits).await
    }

    /// Carries out the batch in its order, now that it is known what matches.
    fn apply(&mut self, batch: &mut Vec<Command>) {
        let hits = std::mem::take(&mut self.hits);
        let mut rest = &hits[..];
        let mut filters = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Publish { seq, message } => {
                    let late = rest.iter().take_while(|hit| hit.seq < seq).count();
                    if late > 0 {
                        tracing::error!(late, "rumqttd matched messages after their fence");
                        count(&self.counters.late, late);
                        rest = &rest[late..];
                    }
                    let own = rest.iter().take_while(|hit| hit.seq == seq).count();
                    filters.clear();
                    filters.extend(rest[..own].iter().map(|hit| hit.filter));
                    rest = &rest[own..];
                    self.deliver(seq, &message, &filters);
                }
                Command::Link { queue, reply } => {
                    self.last_link += 1;
                    let id = LinkId(self.last_link);
                    let (outlet, link) = pair(id, queue);
                    if reply.send(link).is_ok() {
                        self.table.add_link(id, outlet);
                    }
                }
                Command::Unlink { link, reply } => {
                    self.table.remove_link(link);
                    answer(reply, ());
                }
                Command::Subscribe {
                    link,
                    filter,
                    reply,
                } => {
                    let joined = if self.table.has_link(link) {
                        self.table.join(link, &filter)
                    } else {
                        None
                    };
                    answer(reply, joined.ok_or(RouterError::UnknownLink(link)));
                }
                Command::Unsubscribe {
                    link,
                    filter,
                    reply,
                } => {
                    let parted = self.table.part(link, &filter);
                    answer(reply, parted.ok_or(RouterError::UnknownLink(link)));
                }
                Command::Fence { reply } => answer(reply, ()),
                Command::Poison => {}
            }
        }
        self.hits = hits;
    }

    fn deliver(&mut self, seq: u64, message: &Arc<Message>, filters: &[FilterId]) {
        count(&self.counters.published, 1);
        if self.crossed {
            for filter in filters {
                self.load.hit(&message.topic, *filter);
            }
        }
        let mut receivers = std::mem::take(&mut self.receivers);
        self.table.receivers(filters, &mut receivers);
        let mut delivered = 0;
        for (link, matched) in receivers.drain(..) {
            let Some(outlet) = self.table.outlet(link) else {
                continue;
            };
            let message = message.clone();
            match outlet.offer(Delivery {
                seq,
                message,
                matched,
            }) {
                Offer::Taken => delivered += 1,
                Offer::Dropped => count(&self.counters.dropped, 1),
                Offer::Full => {
                    count(&self.counters.closed, 1);
                    self.table.remove_link(link);
                }
                Offer::Gone => self.table.remove_link(link),
            }
        }
        count(&self.counters.delivered, delivered);
        self.receivers = receivers;
    }

    /// Between two batches nothing is in the engine, so here it may be replaced.
    async fn settle(&mut self) {
        for (id, filter) in self.table.sweep() {
            let unknown = self.subscribe.remove(&id).is_some() || self.engine.is_none();
            if !unknown {
                self.unsubscribe.push(filter);
            }
        }
        let live = self.table.filter_count();
        if self.load.passes(&self.limits, live) {
            count(&self.counters.replaced, 1);
            self.drop_engine().await;
        }
        gauge(&self.counters.links, self.table.link_count());
        gauge(&self.counters.filters, live);
        gauge(&self.counters.engine_bytes, self.load.bytes(live));
    }

    async fn drop_engine(&mut self) {
        self.load = Load::default();
        self.subscribe.clear();
        self.unsubscribe.clear();
        if let Some(engine) = self.engine.take() {
            engine.retire().await;
        }
    }
}

/// Who asked may have gone away; that is no error.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
