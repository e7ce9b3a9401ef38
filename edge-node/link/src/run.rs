//! The loop of link: bus on one side, cloud on the other, the session of `protocols/link` in between.
//!
//! ```text
//! no identity ─► Joining ─ node.json ─► Idle ─ pause over, bus read ─► Dialing ─► Up ─┐
//!                                        ▲                                             │
//!                                        └── broken, refused, bus reconnected ─────────┘
//! ```
//! A session begins only when nothing is being written to the bus any more and what lies there was read: so
//! what the greeting says is held here is true.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use edgebus_bus::payload::{self, LinkUp, SyncMark};
use edgebus_bus::{Name, NodeName, Topic, table};
use edgebus_client::{Bus, Change, Delivery, Message, now_rfc3339_ms, random_id};
use edgebus_linkproto::{Act, Code, Frames, Ident, Kind, Session, Ticket};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::dial::{self, DialError, Server, Socket};
use crate::files;
use crate::identity::{self, Identity};
use crate::line::{Line, LineError};
use crate::mirror;
use crate::renew::Renewal;
use crate::spool::Spool;
use crate::state::Board;
use crate::uplink;

/// How often the files, the spool and the certificate are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(15);
/// For reading all of link's topics from the bus.
const READ_TIME: Duration = Duration::from_secs(30);
/// For the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A heartbeat older than this says nothing about now.
const BEAT_AGE: Duration = Duration::from_secs(10);
/// Events that go into one transaction of the spool.
const EVENT_BATCH: usize = 64;

/// Runs link until `stop`. The cloud may be away, the node not joined yet, the broker gone: it waits. An error
/// is one that waiting does not mend.
pub async fn run(config: Config, bus: Bus, stop: CancellationToken) -> Result<()> {
    files::make_dir(&config.data_dir)?;
    let spool = Spool::open(&config.data_dir, config.spool)?;
    let me = Ident {
        node: String::new(),
        store_id: String::new(),
        cluster_id: String::new(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let session = Session::new(me, config.budgets.clone(), config.timing);
    let link = Link {
        backoff: Backoff::new(config.retry_max),
        session,
        spool,
        fed: 0,
        bus,
        started: Instant::now(),
        identity: None,
        pinned_at: None,
        way: Way::Idle {
            until: Instant::now(),
        },
        blocked: false,
        lost_at: Instant::now(),
        opened_at: None,
        writing: FuturesUnordered::new(),
        bus_read: false,
        store_id: String::new(),
        rev: 0,
        marks: BTreeMap::new(),
        twins: BTreeMap::new(),
        beat: None,
        renewal: Renewal::default(),
        board: Board::new(),
        pinged: Instant::now(),
        tasks: TaskTracker::new(),
        config,
    };
    link.turn(stop).await
}

type Dialing = Pin<Box<dyn Future<Output = Result<Socket, DialError>> + Send>>;
type Written = (What, edgebus_client::Result<()>);
type Writing = Pin<Box<dyn Future<Output = Written> + Send>>;

/// What a write to the bus was for.
enum What {
    /// Something that the cloud waits for.
    Effect(Ticket),
    Mark(String),
    State,
}

enum Way {
    Idle { until: Instant },
    Dialing(Dialing),
    Up(Box<Line>),
}

/// Why a connection ended.
struct End {
    state: LinkUp,
    why: String,
    /// The other end said no; there is no hurry.
    refused: bool,
}

impl End {
    fn down(why: impl Into<String>) -> End {
        End {
            state: LinkUp::Down,
            why: why.into(),
            refused: false,
        }
    }
}

struct Link {
    config: Config,
    bus: Bus,
    session: Session,
    spool: Spool,
    /// The last event handed to the session.
    fed: u64,
    started: Instant,
    identity: Option<Identity>,
    /// When `node.json` was written.
    pinned_at: Option<SystemTime>,
    way: Way,
    blocked: bool,
    backoff: Backoff,
    lost_at: Instant,
    opened_at: Option<Instant>,
    writing: FuturesUnordered<Writing>,
    /// What lies on the bus is known.
    bus_read: bool,
    store_id: String,
    rev: u64,
    marks: BTreeMap<String, SyncMark>,
    /// Twins and statuses as they lie on the bus.
    twins: BTreeMap<Topic, Bytes>,
    beat: Option<(Instant, Topic, Bytes)>,
    renewal: Renewal,
    board: Board,
    pinged: Instant,
    tasks: TaskTracker,
}

enum Input {
    Stop,
    BusChanged,
    Up(Option<edgebus_client::Result<Change>>),
    Beat(Option<edgebus_client::Result<Message>>),
    Event(Option<edgebus_client::Result<Delivery>>),
    Written(Written),
    Dialed(Result<Socket, DialError>),
    Received(Result<Bytes, LineError>),
    Time,
}

impl Link {
    async fn turn(mut self, stop: CancellationToken) -> Result<()> {
        let mut inbox = self.bus.inbox();
        let mut up = self.bus.collection(uplink::filters()).await?.mirror();
        let beat = Topic::NodeBeat {};
        let beats = [table::filter_of(beat.row().pattern, &[])];
        let mut beats = self.bus.subscribe(beats).await?;
        let mut bus_status = self.bus.status();
        let mut connects = 0;
        let mut tick = Instant::now();
        loop {
            if !self.bus_read && self.writing.is_empty() && bus_status.borrow().connected {
                tokio::select! {
                    read = self.read_bus() => read?,
                    () = stop.cancelled() => {}
                }
            }
            if tick <= Instant::now() {
                tick = Instant::now() + TICK;
                self.on_tick()?;
            }
            self.maybe_dial();
            self.feed()?;
            self.pump();
            self.say();
            let wake = self.wake(tick);
            let input = tokio::select! {
                () = stop.cancelled() => Input::Stop,
                changed = bus_status.changed() => match changed {
                    Ok(()) => Input::BusChanged,
                    Err(_) => Input::Stop,
                },
                change = up.next() => Input::Up(change),
                beat = beats.next() => Input::Beat(beat),
                event = inbox.next() => Input::Event(event),
                Some(written) = self.writing.next() => Input::Written(written),
                input = on_way(&mut self.way, self.blocked) => input,
                () = sleep_until(wake.into()) => Input::Time,
            };
            match input {
                Input::Stop => return self.end().await,
                Input::BusChanged => {
                    let status = bus_status.borrow_and_update().clone();
                    if status.connects != connects {
                        connects = status.connects;
                        // Another connection may mean another store behind it.
                        self.bus_read = false;
                        self.lose(End::down("the connection to the bus was renewed"));
                    }
                }
                Input::Up(Some(change)) => self.on_up(change?)?,
                Input::Beat(Some(beat)) => self.on_beat(beat?),
                Input::Event(Some(event)) => self.on_event(event?, &mut inbox).await?,
                Input::Up(None) | Input::Beat(None) | Input::Event(None) => {
                    return self.end().await;
                }
                Input::Written((what, result)) => self.on_written(what, result),
                Input::Dialed(Ok(socket)) => self.on_connected(socket),
                Input::Dialed(Err(error)) => self.on_dial_failed(&error),
                Input::Received(Ok(message)) => self.on_message(message),
                Input::Received(Err(error)) => self.lose(End::down(error.to_string())),
                Input::Time => {
                    self.blocked = false;
                    let acts = self.session.on_time(self.now_ms());
                    self.on_acts(acts);
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads all of link's own topics: that is all the memory it has.
    async fn read_bus(&mut self) -> Result<()> {
        let found = match self.bus.snapshot(mirror::filters(), READ_TIME).await {
            Ok(found) => found,
            Err(error) if error.can_retry() => {
                tracing::warn!(%error, "link's topics could not be read from the bus");
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
        Ok(())
    }

    fn on_tick(&mut self) -> Result<()> {
        let now = Timestamp::now();
        if let Some(dropped) = self.spool.trim(now)? {
            self.session.events().dropped_up_to(dropped);
            self.fed = self.fed.max(dropped);
            tracing::warn!(totals = ?self.spool.totals(), "the spool is full or its events too old");
        }
        let pinned_at = std::fs::metadata(self.config.dir.join(files::PINNED))
            .and_then(|meta| meta.modified())
            .ok();
        if self.identity.is_none() || pinned_at != self.pinned_at {
            self.load_identity(pinned_at);
        }
        if self.session.is_open() {
            if self.pinged.elapsed() >= PING_EVERY {
                self.pinged = Instant::now();
                let now_ms = self.now_ms();
                self.session.ping(now_ms);
            }
            if let Some(id) = &self.identity
                && let Some(csr) = self.renewal.request(&id.cert, &id.pinned.node, now)?
                && !self.session.renew(csr)
            {
                self.renewal.disconnected();
            }
        }
        Ok(())
    }

    /// The node was joined, joined anew, or reset.
    fn load_identity(&mut self, pinned_at: Option<SystemTime>) {
        if self.identity.is_some() {
            self.lose(End::down("the node's identity was changed"));
        }
        self.pinned_at = pinned_at;
        match Identity::load(&self.config.dir, false) {
            Ok(identity) => {
                tracing::info!(node = %identity.pinned.node, server = %identity.pinned.server, "joined");
                self.backoff = Backoff::new(self.config.retry_max);
                self.way = Way::Idle {
                    until: Instant::now(),
                };
                self.board.cert(Some(identity.cert.until));
                self.board.set(LinkUp::Down, Some("connecting".into()));
                self.identity = Some(identity);
            }
            Err(error) => {
                self.identity = None;
                self.board.cert(None);
                let (state, why) = if error.is_missing() {
                    let dir = self.config.dir.display();
                    (
                        LinkUp::Joining,
                        format!(
                            "this node is not joined: no identity in {dir}; see `edgebus join --help`"
                        ),
                    )
                } else {
                    (LinkUp::Down, chain(&error))
                };
                if self.board.set(state, Some(why.clone())) {
                    tracing::warn!("{why}");
                }
            }
        }
    }

    fn maybe_dial(&mut self) {
        let Way::Idle { until } = self.way else {
            return;
        };
        let ready = self.bus_read && self.writing.is_empty() && Instant::now() >= until;
        let (true, Some(identity)) = (ready, &self.identity) else {
            return;
        };
        let (tls, within) = (identity.tls.clone(), self.config.dial_timeout);
        match Server::parse(&identity.pinned.server) {
            Ok(server) => {
                let dial = async move { dial::link(&server, tls, within).await };
                self.way = Way::Dialing(Box::pin(dial));
            }
            Err(error) => self.on_dial_failed(&error),
        }
    }

    fn on_dial_failed(&mut self, error: &DialError) {
        let why = chain(error);
        self.backoff.failed(self.lost_at.elapsed());
        self.renewed_pair_failed();
        self.rest(LinkUp::Down, why);
    }

    fn on_connected(&mut self, socket: Socket) {
        let Some(identity) = &self.identity else {
            return;
        };
        self.session.set_ident(Ident {
            node: identity.pinned.node.clone(),
            store_id: self.store_id.clone(),
            cluster_id: identity.pinned.cluster_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        let now_ms = self.now_ms();
        self.session.connect(now_ms);
        self.way = Way::Up(Box::new(Line::new(socket, &self.tasks)));
        self.blocked = false;
    }

    /// The connection is over: what it was for waits for the next one.
    fn lose(&mut self, end: End) {
        let line = match std::mem::replace(
            &mut self.way,
            Way::Idle {
                until: Instant::now(),
            },
        ) {
            Way::Up(line) => line,
            // A dial under way belongs to what was before.
            Way::Dialing(_) | Way::Idle { .. } => return,
        };
        let open = self.opened_at.take().map(|at| at.elapsed());
        tracing::info!(
            why = %end.why, bytes_in = line.bytes_in, bytes_out = line.bytes_out, ?open,
            "the link is down"
        );
        self.session.disconnect();
        self.renewal.disconnected();
        match open {
            Some(open) => {
                self.lost_at = Instant::now();
                self.backoff.ended(open);
            }
            None => {
                self.backoff.failed(self.lost_at.elapsed());
                self.renewed_pair_failed();
            }
        }
        if end.refused {
            self.backoff.refused();
        }
        self.rest(end.state, end.why);
    }

    fn rest(&mut self, state: LinkUp, why: String) {
        let pause = self.backoff.pause(dice());
        self.way = Way::Idle {
            until: Instant::now() + pause,
        };
        if self.board.set(state, Some(why.clone())) {
            tracing::warn!(?pause, "{why}");
        }
    }

    fn renewed_pair_failed(&mut self) {
        let is_new = self.identity.as_ref().is_some_and(|id| id.is_new);
        if is_new && self.renewal.dial_failed() {
            tracing::error!("the renewed certificate does not connect: back to the one before");
            if let Err(error) = identity::discard(&self.config.dir) {
                tracing::error!(%error, "throwing the renewed certificate away");
            }
            // Read anew at the next tick.
            self.identity = None;
            self.pinned_at = None;
        }
    }

    fn on_message(&mut self, message: Bytes) {
        let frames = match Frames::new(message).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(frames) => frames,
            Err(error) => {
                let why = format!("the cloud sent what is no message: {error}");
                self.session.bye(Code::PROTOCOL, &why);
                self.pump();
                return self.lose(End::down(why));
            }
        };
        for frame in frames {
            let acts = self.session.on_frame(frame, self.now_ms());
            self.on_acts(acts);
            if !matches!(self.way, Way::Up(_)) {
                return;
            }
        }
    }

    fn on_acts(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Open { .. } => self.on_open(),
                Act::Apply { ticket, put } => match mirror::check(&put.kind, &put.topic)
                    .and_then(|topic| mirror::payload(&topic, &put, self.rev + 1))
                {
                    Ok(payload) => {
                        self.rev += 1;
                        self.write(What::Effect(ticket), Message::new(put.topic, payload));
                    }
                    Err(error) => self.refuse(ticket, Code::UNPROCESSABLE, &error.to_string()),
                },
                Act::Remove {
                    ticket,
                    kind,
                    topic,
                    ..
                } => match mirror::check(&kind, &topic) {
                    Ok(topic) => self.write(What::Effect(ticket), Ok(Message::clear(&topic))),
                    Err(error) => self.refuse(ticket, Code::UNPROCESSABLE, &error.to_string()),
                },
                Act::Synced { kind, digest } => {
                    tracing::info!(%kind, objects = digest.count(), "the mirror is complete");
                    self.board.synced(kind.as_str());
                    self.mark(kind.as_str(), true);
                }
                Act::EventDone { id, refused } => {
                    if let Some(why) = refused {
                        tracing::warn!(%why, "the cloud refused an event for good");
                    }
                    if let Err(error) = self.spool.remove(id) {
                        tracing::error!(error = %chain(&error), "an event may be sent again");
                    }
                }
                Act::Rejected {
                    kind,
                    topic,
                    code,
                    why,
                } => {
                    tracing::warn!(%kind, %topic, %code, %why, "the cloud refused it for good");
                }
                Act::Delayed {
                    kind,
                    topic,
                    code,
                    why,
                } => {
                    tracing::debug!(%kind, %topic, %code, %why, "the cloud cannot take it now");
                }
                Act::Renewed { cert_pem, .. } => self.on_renewed(&cert_pem),
                Act::RenewRefused { code, why } => {
                    tracing::warn!(%code, %why, "the certificate was not renewed");
                    if let Some(id) = &self.identity {
                        self.renewal.later(&id.cert, Timestamp::now());
                    }
                }
                Act::Rtt { ms } => self.board.rtt(ms),
                Act::Closed { code, why, .. } => self.on_closed(code, why),
                // The cloud sends no heartbeats; streams are answered as not there.
                Act::Beat { .. } => {}
                Act::Renew { seq, .. } => {
                    self.session
                        .refuse(seq, Code::FORBIDDEN, "this end issues nothing".into());
                }
                Act::Stream(edgebus_linkproto::Frame::Open { stream, .. }) => {
                    let why = "streams are not served by this version".to_owned();
                    let code = Code(501);
                    self.session
                        .send_stream(edgebus_linkproto::Frame::Close { stream, code, why });
                }
                Act::Stream(_) => {}
            }
        }
    }

    fn on_open(&mut self) {
        self.opened_at = Some(Instant::now());
        self.board.set(LinkUp::Up, None);
        self.pinged = Instant::now();
        let now_ms = self.now_ms();
        self.session.ping(now_ms);
        tracing::info!(held = ?self.session.receiver().kinds(), "the link is up");
        if let Some((at, topic, body)) = self.beat.take()
            && at.elapsed() < BEAT_AGE
        {
            self.send_beat(&topic, body);
        }
        if let Some(identity) = self.identity.as_mut().filter(|id| id.is_new) {
            identity.is_new = false;
            self.renewal.proven();
            match identity::promote(&self.config.dir) {
                Ok(()) => {
                    tracing::info!(until = %identity.cert.until, "the renewed certificate is in use")
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "keeping the renewed certificate")
                }
            }
        }
    }

    fn on_renewed(&mut self, cert_pem: &str) {
        let Some(id) = &self.identity else { return };
        match self
            .renewal
            .accept(&self.config.dir, cert_pem, &id.pinned.node)
        {
            Ok(info) => {
                tracing::info!(until = %info.until, "a new certificate came");
                match Identity::load(&self.config.dir, false) {
                    Ok(identity) => {
                        self.board.cert(Some(identity.cert.until));
                        self.identity = Some(identity);
                        self.session
                            .bye(Code::SHUTDOWN, "connecting anew with the new certificate");
                        self.pump();
                        self.lose(End::down("connecting anew with the new certificate"));
                    }
                    Err(error) => tracing::error!(error = %chain(&error), "the new certificate"),
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the new certificate is not taken");
                self.renewal.later(&id.cert, Timestamp::now());
            }
        }
    }

    fn on_closed(&mut self, code: Code, why: String) {
        // A last word of ours may wait to be written.
        self.pump();
        let refused = matches!(
            code,
            Code::CLUSTER_CHANGED
                | Code::REVOKED
                | Code::FORBIDDEN
                | Code::PROTOCOL
                | Code::SUPERSEDED
        );
        let state = match code {
            Code::CLUSTER_CHANGED | Code::REVOKED | Code::FORBIDDEN => LinkUp::Refused,
            _ => LinkUp::Down,
        };
        let why = if code == Code::CLUSTER_CHANGED {
            format!("{why}; `edgebus join --accept-cluster` joins the new one")
        } else {
            why
        };
        self.lose(End {
            state,
            why,
            refused,
        });
    }

    fn on_up(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Set { topic, payload } => {
                if let Ok(topic) = Topic::parse(&topic) {
                    self.twins.insert(topic.clone(), payload);
                    self.offer(&topic)?;
                }
            }
            Change::Gone { topic } => {
                if let Ok(topic) = Topic::parse(&topic) {
                    self.twins.remove(&topic);
                    self.offer(&topic)?;
                }
            }
            Change::Synced => {}
        }
        Ok(())
    }

    /// Brings what should be in the cloud in line with what lies on the bus.
    fn offer(&mut self, topic: &Topic) -> Result<()> {
        let Some(kind) = uplink::kind_of(topic) else {
            return Ok(());
        };
        let kind = kind.context("a constant kind")?;
        let text = topic.to_string();
        let owner_uid = uplink::owner(topic).and_then(|(kind, object)| {
            let (kind, object) = (Kind::new(kind).ok()?, object.to_string());
            let mut held = self.session.receiver().held(&kind);
            held.find(|(topic, ..)| *topic == object)
                .map(|(_, uid, _)| uid.to_owned())
        });
        let Some(payload) = self.twins.get(topic) else {
            if owner_uid.is_none() {
                self.session.sender().remove(&kind, &text);
            }
            return Ok(());
        };
        let node = self
            .identity
            .as_ref()
            .and_then(|id| NodeName::new(&id.pinned.node).ok());
        if node.is_some_and(|node| !uplink::is_ours(topic, payload, &node)) {
            return Ok(());
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
        Ok(())
    }

    fn on_beat(&mut self, beat: Message) {
        let Some(topic @ Topic::NodeBeat {}) = beat.parsed() else {
            return;
        };
        if self.session.is_open() {
            self.send_beat(&topic, beat.payload);
        } else {
            self.beat = Some((Instant::now(), topic, beat.payload));
        }
    }

    fn send_beat(&mut self, topic: &Topic, body: Bytes) {
        if let Ok(kind) = Kind::new(Kind::BEAT) {
            self.session.sender().beat(&kind, &topic.to_string(), body);
        }
    }

    /// Events go to disk, several at a time, and only then is the bus told.
    async fn on_event(&mut self, first: Delivery, inbox: &mut edgebus_client::Inbox) -> Result<()> {
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
    fn feed(&mut self) -> Result<()> {
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

    fn pump(&mut self) {
        let now_ms = self.now_ms();
        let Way::Up(line) = &mut self.way else { return };
        match line.pump(&mut self.session, now_ms) {
            Ok(blocked) => self.blocked = blocked,
            Err(error) => self.lose(End::down(format!("a frame cannot be written: {error}"))),
        }
    }

    fn write(&mut self, what: What, message: edgebus_client::Result<Message>) {
        let bus = self.bus.clone();
        self.writing.push(Box::pin(async move {
            let result = match message {
                Ok(message) => bus.publish(message).await,
                Err(error) => Err(error),
            };
            (what, result)
        }));
    }

    fn mark(&mut self, kind: &str, complete: bool) {
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

    fn on_written(&mut self, what: What, result: edgebus_client::Result<()>) {
        match (what, result) {
            (What::Effect(ticket), Ok(())) => {
                let acts = self.session.done(ticket);
                self.on_acts(acts);
                self.offer_all_changed();
            }
            (What::Effect(ticket), Err(error)) => {
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

    /// An object came, went or was recreated: what goes up about it carries its uid.
    fn offer_all_changed(&mut self) {}

    fn refuse(&mut self, ticket: Ticket, code: Code, why: &str) {
        tracing::warn!(%code, %why, "refused what the cloud sent");
        let acts = self.session.failed(ticket, code, why, true);
        self.on_acts(acts);
    }

    fn say(&mut self) {
        self.board.spool(self.spool.totals());
        if let Some(state) = self.board.news(Instant::now()) {
            self.write(What::State, Message::json(&Topic::Link {}, &state));
        }
    }

    fn wake(&self, tick: Instant) -> Instant {
        let session = self
            .session
            .next_wake()
            .map(|at| self.started + Duration::from_millis(at));
        let dial = match &self.way {
            Way::Idle { until } if self.identity.is_some() && *until > Instant::now() => {
                Some(*until)
            }
            _ => None,
        };
        [session, dial]
            .into_iter()
            .flatten()
            .fold(tick, Instant::min)
    }

    /// The last words, to both sides.
    async fn end(mut self) -> Result<()> {
        self.session.bye(Code::SHUTDOWN, "link stops");
        self.pump();
        self.way = Way::Idle {
            until: Instant::now(),
        };
        self.tasks.close();
        self.board
            .set(LinkUp::Down, Some("link was stopped".into()));
        self.say();
        let last = async {
            while self.writing.next().await.is_some() {}
            self.tasks.wait().await;
        };
        if timeout(LAST_WORDS, last).await.is_err() {
            tracing::debug!("not everything could be said");
        }
        Ok(())
    }
}

/// What the connection, or the attempt to make one, has to say. Waits for ever while there is none.
async fn on_way(way: &mut Way, blocked: bool) -> Input {
    match way {
        Way::Idle { .. } => std::future::pending().await,
        Way::Dialing(dial) => Input::Dialed(dial.await),
        Way::Up(line) if blocked => {
            // Both borrow the line: room is tried first, then what arrives.
            line.next_or_room()
                .await
                .map_or(Input::Time, Input::Received)
        }
        Way::Up(line) => Input::Received(line.next().await),
    }
}

fn dice() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers there is no jitter, which is bearable.
    drop(getrandom::fill(&mut bytes));
    u32::from_ne_bytes(bytes)
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
