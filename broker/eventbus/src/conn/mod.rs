//! One task per connection: a loop over what can happen, with all state in one place. Nothing in
//! it waits for the client: what the client does not take is queued within bounds.

mod deliver;
mod hello;
mod inbound;
mod outbox;
mod subs;
mod window;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::acl::{Rules, row_of};
use crate::broker::{Broker, place_of};
use crate::codec::{CodecError, Disconnect, Packet, Properties, ReasonCode, Version, Will};
use crate::message::{Message, Outgoing, forwarded};
use crate::registry::Seat;
use crate::router::{Delivery, Link};
use crate::spine::Mail;
use crate::store::{Job, Refused};
use deliver::{Load, Loaded};
use inbound::{Pending, State};
use outbox::Outbox;
use subs::Sub;
use window::Window;
use wire::{Input, Output};

/// Unwritten bytes beyond which a client's packets are not read: it takes its answers first.
const UNWRITTEN: usize = 256 * 1024;
/// How long a connection that ends may take for its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long it may take for the commits of what it published.
const LAST_COMMITS: Duration = Duration::from_secs(10);

/// The two halves of a socket.
pub type Stream = (
    Box<dyn AsyncRead + Send + Unpin>,
    Box<dyn AsyncWrite + Send + Unpin>,
);

/// Where a connection came in, which decides what it needs to say to be admitted.
#[derive(Debug, Clone)]
pub enum Door {
    /// The admin socket; trusted = the peer's uid is root's or ours.
    Admin {
        trusted: bool,
    },
    /// The socket of units: token mandatory.
    Bus,
    /// The socket of workloads.
    App,
    Tcp(SocketAddr),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin { .. } => f.write_str("admin socket"),
            Self::Bus => f.write_str("bus socket"),
            Self::App => f.write_str("app socket"),
            Self::Tcp(peer) => write!(f, "tcp {peer}"),
        }
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// DISCONNECT, or the same with the request to send the will.
    Left { will: bool },
    /// The peer closed, or the socket failed.
    Lost,
    /// We end it, and say why if the version can.
    Ours { reason: ReasonCode, why: String },
}

impl End {
    fn refused(reason: ReasonCode, why: impl Into<String>) -> Self {
        Self::Ours {
            reason,
            why: why.into(),
        }
    }
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> Self {
        Self::refused(error.reason(), error.to_string())
    }
}

/// An admitted client.
struct Conn {
    broker: Arc<Broker>,
    rules: Arc<Rules>,
    seat: Seat,
    /// `{name}/{client id}`: names the session.
    key: Arc<str>,
    client_id: String,
    version: Version,
    input: Input,
    output: Output,
    /// The persistent session's number; 0 = none.
    session: u64,
    inbox: bool,
    /// How live messages come: from the router, or for a persistent session from the spine.
    link: Option<Link>,
    mail: Option<Mail>,
    subs: HashMap<Arc<str>, Sub>,
    /// Some subscription's replay has run ahead of live messages.
    ahead: bool,
    aliases: HashMap<u16, Arc<str>>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    outbox: Outbox,
    window: Window,
    load: Option<Load>,
    keep_alive: Option<Duration>,
    heard: Instant,
    /// When the client last took something, or had nothing to take.
    wrote: Instant,
    will: Option<Will>,
    expiry_s: u32,
    /// Whether the client wants reason strings.
    explain: bool,
    notes: u32,
    /// Replays whose last message is sent and not yet acknowledged.
    replayed: Vec<Arc<str>>,
}

enum Event {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Live(Option<Delivery>),
    Mail(Option<Outgoing>),
    Missed,
    Answer(Result<Result<(), Refused>, oneshot::error::RecvError>),
    Loaded(Loaded),
    Kick(Option<ReasonCode>),
    Stop,
    Timer,
}

/// Serves one connection from its first packet to its end. `unknown` is held until the client is
/// admitted.
pub async fn serve(broker: Arc<Broker>, stream: Stream, door: Door, unknown: OwnedSemaphorePermit) {
    let admitted = tokio::select! {
        admitted = hello::admit(&broker, stream, door.clone()) => admitted,
        () = broker.stop.cancelled() => None,
    };
    drop(unknown);
    let Some(mut conn) = admitted else { return };
    let _counted = Counted::new(&broker);
    tracing::debug!(client = %conn.key, %door, "connected");
    let end = conn.run().await;
    conn.finish(end).await;
}

/// Counts a client for as long as it is there, even if its task panics.
struct Counted(Arc<Broker>);

impl Counted {
    fn new(broker: &Arc<Broker>) -> Self {
        broker.counters.connected.up();
        Self(broker.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.connected.down();
    }
}

impl Conn {
    async fn run(&mut self) -> End {
        loop {
            let step = async {
                self.take_packets().await?;
                self.pump().await
            };
            if let Err(end) = step.await {
                return end;
            }
            if self.input.ended && self.takes_more() {
                return End::Lost;
            }
            let event = self.next().await;
            if let Err(end) = self.on(event).await {
                return end;
            }
        }
    }

    /// Waits for the next thing to happen. Every branch is cancel-safe.
    async fn next(&mut self) -> Event {
        let timer = self.deadline();
        let reads = !self.input.ended && self.takes_more() && self.output.waiting() < UNWRITTEN;
        let Self {
            input,
            output,
            link,
            mail,
            pending,
            load,
            seat,
            broker,
            ..
        } = self;
        let writes = output.waiting() != 0;
        tokio::select! {
            read = input.read(), if reads => Event::Read(read),
            wrote = output.write(), if writes => Event::Wrote(wrote),
            live = live(link) => Event::Live(live),
            mail = mailed(mail) => mail,
            answer = answer(pending) => Event::Answer(answer),
            loaded = deliver::loaded(load) => Event::Loaded(loaded),
            kick = seat.kick.recv() => Event::Kick(kick),
            () = broker.stop.cancelled() => Event::Stop,
            () = until(timer) => Event::Timer,
        }
    }

    async fn on(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Read(Ok(_)) => self.heard = Instant::now(),
            Event::Wrote(Ok(_)) => self.wrote = Instant::now(),
            Event::Read(Err(error)) | Event::Wrote(Err(error)) => {
                tracing::debug!(client = %self.key, %error, "the connection failed");
                return Err(End::Lost);
            }
            Event::Live(Some(delivery)) => {
                self.live(delivery)?;
                self.take_live_checked()?;
            }
            Event::Live(None) => {
                self.broker.counters.too_slow.up();
                let why = "too many messages wait for this client";
                return Err(End::refused(ReasonCode::QuotaExceeded, why));
            }
            Event::Mail(Some(mail)) => self.mailed(mail).await,
            Event::Mail(None) => return Err(End::Lost),
            Event::Missed => self.outbox.behind = true,
            Event::Answer(answer) => self.answered(answer).await?,
            Event::Loaded(loaded) => self.on_loaded(loaded).await?,
            Event::Kick(reason) => {
                let reason = reason.unwrap_or(ReasonCode::AdministrativeAction);
                return Err(End::refused(reason, reason.text()));
            }
            Event::Stop => {
                let reason = ReasonCode::ServerShuttingDown;
                return Err(End::refused(reason, reason.text()));
            }
            Event::Timer => self.check_time()?,
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let silence = self.keep_alive.map(|d| self.heard + d);
        let stall =
            (self.output.waiting() != 0).then(|| self.wrote + self.broker.config.write_timeout);
        silence.into_iter().chain(stall).min()
    }

    fn check_time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.keep_alive.is_some_and(|d| self.heard + d <= now) {
            self.broker.counters.timed_out.up();
            let why = "nothing was heard for one and a half times the keep alive";
            return Err(End::refused(ReasonCode::KeepAliveTimeout, why));
        }
        if self.output.waiting() != 0 && self.wrote + self.broker.config.write_timeout <= now {
            self.broker.counters.too_slow.up();
            return Err(End::Lost);
        }
        Ok(())
    }

    /// Handles the packets that are here, as far as the client may go on.
    async fn take_packets(&mut self) -> Result<(), End> {
        while self.takes_more() && self.output.waiting() < UNWRITTEN {
            match self.input.packet(Some(self.version)) {
                Ok(Some(packet)) => self.packet(packet).await?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.broker.counters.protocol_errors.up();
                    self.note_refusal("a packet", &error.to_string()).await;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn packet(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(publish).await,
            Packet::PubAck(ack) => {
                self.acknowledged(ack.packet_id).await;
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await,
            Packet::PingReq => {
                self.output.put(&Packet::PingResp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.disconnected(&disconnect)),
            other => {
                self.broker.counters.protocol_errors.up();
                let why = format!("{:?} is not expected here", other.packet_type());
                Err(End::refused(ReasonCode::ProtocolError, why))
            }
        }
    }

    fn disconnected(&mut self, packet: &Disconnect) -> End {
        if let Some(wanted) = packet.properties.session_expiry_interval {
            if self.expiry_s == 0 && wanted != 0 {
                let why = "the session expiry was 0 at CONNECT and cannot be raised now";
                return End::refused(ReasonCode::ProtocolError, why);
            }
            let max = self.broker.config.session_expiry_max.as_secs();
            self.expiry_s = wanted.min(u32::try_from(max).unwrap_or(u32::MAX));
        }
        End::Left {
            will: packet.reason == ReasonCode::DisconnectWithWill,
        }
    }

    /// Says goodbye, sees to what was published, sends the will and puts the session back.
    async fn finish(mut self, end: End) {
        if let End::Ours { reason, why } = &end {
            tracing::info!(client = %self.key, reason = reason.text(), why, "connection ended");
            if self.version == Version::V5 {
                let mut properties = Properties::NONE;
                if why != reason.text() {
                    properties.reason_string = Some(why.clone());
                }
                self.output.put(&Packet::Disconnect(Disconnect {
                    reason: *reason,
                    properties,
                }));
            }
        }
        self.settle_pending().await;
        if let Ok(Err(error)) = tokio::time::timeout(LAST_WORDS, self.output.close()).await {
            tracing::debug!(client = %self.key, %error, "the socket was gone before its end");
        }
        if let Some(link) = self.link.take() {
            // An error means that the router closed it before, or stops.
            drop(self.broker.router.unlink(link.id()).await);
        }
        let wants_will = match end {
            End::Left { will } => will,
            End::Lost => true,
            End::Ours { reason, .. } => reason != ReasonCode::ServerShuttingDown,
        };
        if let Some(will) = self.will.take()
            && wants_will
        {
            send_will(&self.broker, &self.key, will, self.expiry_s).await;
        }
        if self.session != 0 {
            self.broker.mailboxes.close(self.session);
            let leave = Job::Leave {
                session: self.session,
                expiry_s: self.expiry_s,
            };
            self.broker.store.send(leave).await;
            if self.expiry_s != 0 || self.inbox {
                self.broker
                    .registry
                    .put_in_flight(&self.key, self.window.into_in_flight());
            }
        }
        tracing::debug!(client = %self.key, "disconnected");
    }

    /// What the client published before it went is still committed and routed, in its order.
    async fn settle_pending(&mut self) {
        let all = async {
            while !self.pending.is_empty() {
                let answer = answer(&mut self.pending).await;
                if self.answered(answer).await.is_err() {
                    continue;
                }
            }
        };
        if tokio::time::timeout(LAST_COMMITS, all).await.is_err() {
            tracing::warn!("messages of an ended connection still wait for the store");
        }
    }
}

async fn live(link: &mut Option<Link>) -> Option<Delivery> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

async fn mailed(mail: &mut Option<Mail>) -> Event {
    let Some(mail) = mail else {
        return std::future::pending().await;
    };
    // In this order: what was missed comes after what is in the queue.
    tokio::select! {
        biased;
        next = mail.queue.recv() => Event::Mail(next),
        () = mail.missed.notified() => Event::Missed,
    }
}

async fn answer(
    pending: &mut VecDeque<Pending>,
) -> Result<Result<(), Refused>, oneshot::error::RecvError> {
    match pending.front_mut().map(|p| &mut p.state) {
        Some(State::Waiting(answer, _)) => answer.await,
        _ => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Sends a will now, or after its delay unless the session is taken up before.
async fn send_will(broker: &Arc<Broker>, key: &Arc<str>, will: Will, expiry_s: u32) {
    let delay = will
        .properties
        .will_delay_interval
        .unwrap_or(0)
        .min(expiry_s);
    let Some(row) = row_of(&will.topic) else {
        return;
    };
    let place = place_of(row, will.retain);
    let mut message = Message::new(will.topic, will.payload);
    message.qos = will.qos;
    message.retain = will.retain;
    message.properties = forwarded(&will.properties);
    message.publisher = key.clone();
    let publish = {
        let broker = broker.clone();
        async move {
            if let Err(error) = broker.publish(message, place).await {
                tracing::warn!(%error, "a will was not published");
            }
        }
    };
    if delay == 0 {
        return publish.await;
    }
    let cancelled = broker.stop.child_token();
    broker.registry.put_will(key, cancelled.clone());
    let (broker, key) = (broker.clone(), key.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(delay.into())) => {
                broker.registry.will_sent(&key);
                publish.await;
            }
        }
    });
}
