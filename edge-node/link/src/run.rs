//! The loop of link: bus on one side, cloud on the other, the session of `protocols/link` in between.
//!
//! ```text
//! no identity ─► Joining ─ node.json ─► Idle ─ pause over or network changed, bus read ─► Dialing ─► Up ─┐
//!                                        ▲                                                               │
//!                                        └── broken, refused, bus reconnected ───────────────────────────┘
//! ```
//! A session begins only when nothing is being written to the bus any more and what lies there was read: so
//! what the greeting says is held here is true.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use bytes::Bytes;
use edgebus_bus::payload::{LinkUp, SyncMark};
use edgebus_bus::{Topic, table};
use edgebus_client::{Bus, Change, Delivery, Message};
use edgebus_linkproto::{Code, Ident, Kind, Session, Ticket};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::dial::{DialError, Socket};
use crate::files;
use crate::identity::Identity;
use crate::line::{Line, LineError};
use crate::network::Network;
use crate::renew::Renewal;
use crate::spool::Spool;
use crate::state::Board;
use crate::uplink;

/// How often the files, the spool and the certificate are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How often both ends compare what they hold, whatever they believe.
const COMPARE_EVERY: Duration = Duration::from_secs(600);
/// For the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
        backoff: Backoff::new(config.retry_max, Instant::now()),
        network: Network::new(),
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
        opened_at: None,
        writing: FuturesUnordered::new(),
        bus_read: false,
        store_id: String::new(),
        rev: 0,
        marks: BTreeMap::new(),
        said: BTreeMap::new(),
        beat: None,
        renewal: Renewal::default(),
        board: Board::new(),
        pinged: Instant::now(),
        compared: Instant::now(),
        tasks: TaskTracker::new(),
        config,
    };
    link.turn(stop).await
}

mod bus;
mod cloud;

type Dialing = Pin<Box<dyn Future<Output = Result<Socket, DialError>> + Send>>;
type Written = (What, edgebus_client::Result<()>);
type Writing = Pin<Box<dyn Future<Output = Written> + Send>>;

/// What a write to the bus was for.
enum What {
    /// Something that the cloud waits for.
    Effect(Ticket, Topic),
    Mark(String),
    State,
}

enum Way {
    Idle { until: Instant },
    Dialing { dial: Dialing, since: Instant },
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
    network: Network,
    opened_at: Option<Instant>,
    writing: FuturesUnordered<Writing>,
    /// What lies on the bus is known.
    bus_read: bool,
    store_id: String,
    rev: u64,
    marks: BTreeMap<String, SyncMark>,
    /// Twins and statuses as they lie on the bus.
    said: BTreeMap<Topic, Bytes>,
    beat: Option<(Instant, Topic, Bytes)>,
    renewal: Renewal,
    board: Board,
    pinged: Instant,
    compared: Instant,
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
        let will = Message::json(&Topic::Link {}, &Board::will())?;
        let mut inbox = self.bus.inbox_with_will(will);
        let mut inbox_status = inbox.status();
        let mut up = self.bus.collection(uplink::filters()).await?.mirror();
        let beat = Topic::NodeBeat {};
        let beats = [table::filter_of(beat.row().pattern, &[])];
        let mut beats = self.bus.subscribe(beats).await?;
        let mut bus_status = self.bus.status();
        let mut connects = 0;
        let mut tick = Instant::now();
        loop {
            if !self.bus_read && self.writing.is_empty() && bus_status.borrow().connected {
                connects = bus_status.borrow_and_update().connects;
                tokio::select! {
                    read = self.read_bus() => read?,
                    () = stop.cancelled() => {}
                }
            }
            if tick <= Instant::now() {
                tick = Instant::now() + TICK;
                self.on_tick()?;
            }
            self.look_at_network();
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
                Ok(()) = inbox_status.changed() => {
                    if inbox_status.borrow_and_update().connected {
                        self.board.repeat();
                    }
                    continue;
                }
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
                Input::Up(Some(change)) => self.on_up(change?),
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
                    let acts = self.session.on_time(self.now_ms());
                    self.on_acts(acts);
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn on_tick(&mut self) -> Result<()> {
        let now = Timestamp::now();
        if !self.spool.is_there() {
            bail!("the spool of events was removed, as by `edgebus reset`: starting anew");
        }
        if let Some(dropped) = self.spool.trim(now)? {
            self.session.events().dropped_up_to(dropped);
            self.fed = self.fed.max(dropped);
            tracing::warn!(totals = ?self.spool.totals(), "the spool is full or its events too old");
        }
        let pinned_at = std::fs::metadata(self.config.dir.join(files::PINNED))
            .and_then(|meta| meta.modified())
            .ok();
        if self.identity.is_none() || pinned_at != self.pinned_at {
            self.load_identity(pinned_at)?;
        }
        if self.session.is_open() {
            if self.pinged.elapsed() >= PING_EVERY {
                self.pinged = Instant::now();
                let now_ms = self.now_ms();
                self.session.ping(now_ms);
            }
            if self.compared.elapsed() >= COMPARE_EVERY {
                self.compared = Instant::now();
                // Also those of which nothing is left here.
                let known = self.marks.keys().filter_map(|kind| Kind::new(kind).ok());
                let mut kinds: BTreeSet<Kind> = known.collect();
                kinds.extend(self.session.receiver().kinds());
                for kind in kinds {
                    self.session.recheck(&kind);
                }
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

    fn wake(&self, tick: Instant) -> Instant {
        let session = self
            .session
            .next_wake()
            .map(|at| self.started + Duration::from_millis(at));
        let ready = self.identity.is_some() && self.bus_read && self.writing.is_empty();
        let (dial, look) = match &self.way {
            Way::Idle { until } if ready => (Some(*until), Some(self.network.next_look())),
            Way::Dialing { .. } => (None, Some(self.network.next_look())),
            _ => (None, None),
        };
        [session, dial, look]
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
        Way::Dialing { dial, .. } => Input::Dialed(dial.await),
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
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        // No jitter is bearable.
        Err(_) => u32::MAX,
    }
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
