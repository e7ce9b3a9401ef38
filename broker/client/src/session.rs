//! The task behind a [`Bus`](crate::Bus): one connection after the other, and on each of them
//! subscriptions, own topics and everything unacknowledged again.

use crate::error::Code;
use crate::flight::{Done, Flight};
use crate::ledger::Ledger;
use crate::message::Message;
use crate::options::ConnectOptions;
use crate::queue::lock;
use crate::subs::{Phase, Sink, Sub};
use crate::wire::{Accepted, Incoming, Outlet, Wire, WireError};
use edgebus_bus::payload::{Health, Up};
use edgebus_bus::table::{self, Retain};
use edgebus_bus::{Topic, Word};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Messages that wait here before callers have to.
const QUEUE: usize = 512;
/// Bytes that may wait for the socket before messages wait in the queue instead.
const UNWRITTEN: usize = 256 * 1024;
/// What the last messages get at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Config {
    pub options: ConnectOptions,
    pub boot: String,
    /// Ask the broker to queue for us while we are away.
    pub keep_session: bool,
    /// What the broker says in our place when the connection breaks; a unit's own is `down` on its
    /// health.
    pub will: Option<Message>,
}

/// What a handle asks of the session.
pub(crate) enum Command {
    Publish(Message, Done),
    Subscribe {
        id: u64,
        filters: Vec<String>,
        sink: Sink,
    },
    Health(Up, Option<String>),
}

/// How the connection is.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// There is one.
    pub connected: bool,
    /// How many there have been.
    pub connects: u64,
    /// The broker refused the last attempt.
    pub refused: Option<Code>,
    /// What the last attempt met.
    pub last_error: String,
    /// There will be no other.
    pub closed: bool,
}

/// What handles tell the session without waiting.
#[derive(Default)]
pub(crate) struct Shared {
    wake: Arc<Notify>,
    detached: Mutex<Vec<u64>>,
}

/// Ends a subscription when dropped.
pub(crate) struct Detach {
    id: u64,
    shared: Arc<Shared>,
}

impl Detach {
    pub fn new(id: u64, shared: Arc<Shared>) -> Self {
        Self { id, shared }
    }
}

impl Drop for Detach {
    fn drop(&mut self) {
        lock(&self.shared.detached).push(self.id);
        self.shared.wake.notify_one();
    }
}

struct Session {
    config: Config,
    flight: Flight,
    ledger: Arc<Ledger>,
    subs: BTreeMap<u64, Sub>,
    /// State that we say again at each connect.
    own: BTreeMap<String, Message>,
    health: Option<Health>,
    echo: String,
    echo_asked: bool,
    connects: u64,
    shared: Arc<Shared>,
}

/// Runs until `stop`, or until all handles are gone.
pub(crate) async fn run(
    config: Config,
    mut commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    status: watch::Sender<Status>,
    stop: CancellationToken,
) {
    let mut session = Session::new(config, shared);
    let mut failures = 0u32;
    while !stop.is_cancelled() {
        let attempt = session.offline(pause(failures), &mut commands, &stop);
        let (wire, accepted) = match attempt.await {
            Some(Ok(connected)) => connected,
            Some(Err(e)) => {
                session.failed(&e, failures, &status);
                failures = failures.saturating_add(1);
                continue;
            }
            None => break,
        };
        session.connects += 1;
        status.send_replace(Status {
            connected: true,
            connects: session.connects,
            ..Status::default()
        });
        tracing::debug!(client = session.config.options.client_id, "on the bus");
        let since = Instant::now();
        match session.online(wire, accepted, &mut commands, &stop).await {
            Ok(()) => break,
            Err(e) => {
                // One that ends at once counts as a failed attempt, or two clients of one id
                // would take over each other's session as fast as they can.
                failures = u32::from(since.elapsed() < Duration::from_secs(1)) * (failures + 1);
                session.lost();
                session.failed(&e, failures, &status);
            }
        }
    }
    session.close(&mut commands);
    status.send_modify(|s| {
        s.connected = false;
        s.closed = true;
    });
}

/// None before the first attempt, then doubling, half of it by chance.
fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let full = Duration::from_millis(20u64 << failures.min(10)).min(PAUSE_MAX);
    let chance = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    full / 2 + full / 2 * chance / 255
}

impl Session {
    fn new(config: Config, shared: Arc<Shared>) -> Self {
        let name = &config.options.name;
        let nonce = Word::new(config.boot.clone()).expect("the boot id is hexadecimal");
        let echo = Topic::Echo {
            c: name.clone(),
            n: nonce,
        };
        let health = config.options.is_unit.then(|| Health {
            state: Up::Up,
            boot: config.boot.clone(),
            pid: std::process::id(),
            version: config.options.version.clone(),
            why: None,
        });
        let mut session = Self {
            flight: Flight::new(),
            ledger: Ledger::new(shared.wake.clone()),
            subs: BTreeMap::new(),
            own: BTreeMap::new(),
            health,
            echo: echo.to_string(),
            echo_asked: false,
            connects: 0,
            shared,
            config,
        };
        if let Some(up) = session.health_message(Up::Up, None) {
            session.own.insert(up.topic.clone(), up);
        }
        session
    }

    fn health_message(&self, state: Up, why: Option<String>) -> Option<Message> {
        let topic = Topic::Health {
            c: self.config.options.name.clone(),
        };
        let said = Health {
            state,
            why,
            ..self.health.clone()?
        };
        // Health is far below the size limit, and its topic is always valid.
        Message::json(&topic, &said).ok()
    }

    /// Connects after `wait`; takes commands meanwhile. None = stopped.
    async fn offline(
        &mut self,
        wait: Duration,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Option<Result<(Wire, Accepted), WireError>> {
        let options = self.config.options.clone();
        let keep = self.config.keep_session;
        let down = || self.health_message(Up::Down, Some("connection lost".into()));
        let will = self.config.will.clone().or_else(down);
        let attempt = async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            Wire::connect(&options, will.as_ref(), keep).await
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                outcome = &mut attempt => return Some(outcome),
                command = commands.recv(), if self.flight.queued() < QUEUE => {
                    self.take(command?);
                }
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Serves one connection. Ok = it was ended on purpose.
    async fn online(
        &mut self,
        wire: Wire,
        accepted: Accepted,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(), WireError> {
        let Wire {
            mut reader,
            mut writer,
        } = wire;
        let half = accepted.keep_alive / 2;
        self.begin(&accepted);
        let wake = self.shared.wake.clone();
        let mut tick = interval(half);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut spoken) = (Instant::now(), Instant::now());
        let mut closing: Option<Instant> = None;
        let mut said_bye = false;
        loop {
            self.fill(&mut writer)?;
            if closing.is_some() && self.flight.len() == 0 && writer.is_empty() {
                if said_bye {
                    return Ok(());
                }
                writer.disconnect()?;
                said_bye = true;
            }
            tokio::select! {
                read = reader.fill() => {
                    if said_bye {
                        return Ok(());
                    }
                    read?;
                    heard = Instant::now();
                    while let Some(packet) = reader.next()? {
                        self.incoming(packet);
                    }
                }
                written = writer.write(), if !writer.is_empty() => {
                    written?;
                    spoken = Instant::now();
                }
                command = commands.recv(), if closing.is_none() && self.flight.queued() < QUEUE => {
                    match command {
                        Some(command) => self.take(command),
                        None => closing = Some(self.last_words(commands)),
                    }
                }
                () = wake.notified() => {}
                _ = tick.tick() => {
                    if heard.elapsed() > half * 3 {
                        return Err(WireError::Ended);
                    }
                    // In both directions: a broker that hears us need not be alive.
                    if heard.elapsed() >= half || spoken.elapsed() >= half {
                        writer.ping()?;
                    }
                }
                () = stop.cancelled(), if closing.is_none() => {
                    closing = Some(self.last_words(commands));
                }
                () = sleep_until(closing.unwrap_or_else(Instant::now)), if closing.is_some() => {
                    return Ok(());
                }
            }
        }
    }

    /// A connection is up.
    fn begin(&mut self, accepted: &Accepted) {
        if self.config.keep_session {
            tracing::debug!(
                client = self.config.options.client_id,
                present = accepted.session_present,
                "inbox"
            );
        }
        self.flight.connected(accepted.receive_max);
        self.ledger.reset();
        self.echo_asked = false;
        for sub in self.subs.values_mut() {
            sub.phase = Phase::New;
        }
        for message in self.own.values() {
            self.flight.push_first(message.clone());
        }
    }

    /// The connection is gone.
    fn lost(&mut self) {
        self.flight.lost();
        self.ledger.reset();
        for sub in self.subs.values() {
            match &sub.sink {
                Sink::Stream(queue) => queue.set_lost(),
                Sink::Inbox(queue) => {
                    queue.set_lost();
                    queue.clear();
                }
                Sink::Collection(_) => {}
            }
        }
    }

    fn failed(&self, error: &WireError, failures: u32, status: &watch::Sender<Status>) {
        let client = &self.config.options.client_id;
        let address = self.config.options.address.to_string();
        // Once loudly: after that it is the same story again.
        if failures == 0 {
            tracing::warn!(client, address, %error, "not on the bus, trying again");
        } else {
            tracing::debug!(client, address, %error, failures, "not on the bus");
        }
        status.send_modify(|s| {
            s.connected = false;
            s.last_error = error.to_string();
            s.refused = match error {
                WireError::Refused(code) => Some(*code),
                _ => None,
            };
        });
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Publish(message, done) => self.publish(message, done),
            Command::Subscribe { id, filters, sink } => {
                let phase = Phase::New;
                let sub = Sub {
                    filters,
                    sink,
                    phase,
                };
                self.subs.insert(id, sub);
            }
            Command::Health(state, why) => {
                if let Some(message) = self.health_message(state, why) {
                    self.publish(message, None);
                }
            }
        }
    }

    fn publish(&mut self, message: Message, done: Done) {
        if message.is_own() {
            if message.payload.is_empty() {
                self.own.remove(&message.topic);
            } else {
                self.own.insert(message.topic.clone(), message.clone());
            }
        }
        self.flight.push(message, done);
    }

    /// No more commands; says `down`. Gives the time at which the rest is given up.
    fn last_words(&mut self, commands: &mut mpsc::Receiver<Command>) -> Instant {
        commands.close();
        while let Ok(command) = commands.try_recv() {
            self.take(command);
        }
        if let Some(down) = self.health_message(Up::Down, Some("stopped".into())) {
            self.publish(down, None);
        }
        Instant::now() + GRACE
    }

    /// Queues for the socket what may be said now.
    fn fill(&mut self, writer: &mut Outlet) -> Result<(), WireError> {
        for pkid in self.ledger.due() {
            writer.ack(pkid)?;
        }
        let detached = std::mem::take(&mut *lock(&self.shared.detached));
        for id in detached {
            self.detach(id, writer)?;
        }
        for (id, sub) in &mut self.subs {
            if sub.phase != Phase::New {
                continue;
            }
            let mut filters = sub.filters.clone();
            match &sub.sink {
                // Each connection may add what was under way; so not before it is read.
                Sink::Stream(queue) if queue.is_full() => continue,
                Sink::Collection(queue) => {
                    // Before SUBSCRIBE: the broker may send retained messages before SUBACK.
                    queue.init();
                    if !self.echo_asked {
                        filters.insert(0, self.echo.clone());
                        self.echo_asked = true;
                    }
                }
                _ => {}
            }
            let pkid = self.flight.other_pkid();
            writer.subscribe(pkid, &filters)?;
            sub.phase = Phase::Asked(pkid);
            tracing::trace!(id, ?filters, "subscribe");
        }
        while writer.len() < UNWRITTEN {
            match self.flight.next() {
                Some((pkid, message)) => writer.publish(pkid, message)?,
                None => break,
            }
        }
        Ok(())
    }

    fn detach(&mut self, id: u64, writer: &mut Outlet) -> Result<(), WireError> {
        let Some(gone) = self.subs.remove(&id) else {
            return Ok(());
        };
        if matches!(gone.phase, Phase::New | Phase::Refused) {
            return Ok(());
        }
        let mut filters = gone.filters;
        filters.retain(|f| !self.subs.values().any(|s| s.filters.contains(f)));
        if !filters.is_empty() {
            let pkid = self.flight.other_pkid();
            writer.unsubscribe(pkid, filters)?;
        }
        Ok(())
    }

    fn incoming(&mut self, packet: Incoming) {
        match packet {
            Incoming::Message { pkid, message } => self.deliver(pkid, message),
            Incoming::PubAck { pkid, refusal } => {
                if let Some(refused) = self.flight.acked(pkid, refusal)
                    && self.own.get(&refused.topic) == Some(&refused)
                {
                    self.own.remove(&refused.topic);
                }
            }
            Incoming::SubAck { pkid, refusals } => {
                self.flight.other_done(pkid);
                let asked = Phase::Asked(pkid);
                let found = self.subs.iter_mut().find(|(_, s)| s.phase == asked);
                // Not found: detached meanwhile, and unsubscribed right behind.
                if let Some((id, sub)) = found {
                    let echo = format!("{id}.{}", self.connects);
                    if sub.granted(&self.echo, refusals) {
                        // Ahead of what waits: readers wait for it.
                        self.flight.push_first(Message {
                            topic: self.echo.clone(),
                            payload: echo.into(),
                            retain: false,
                            qos: 1,
                        });
                    }
                }
            }
            Incoming::UnsubAck { pkid } => self.flight.other_done(pkid),
            Incoming::Pong => {}
        }
    }

    fn deliver(&mut self, pkid: u16, message: Message) {
        let on_drop = !self.config.keep_session;
        let token = (pkid != 0).then(|| Arc::new(self.ledger.enter(pkid, on_drop)));
        if message.topic == self.echo {
            self.echoed(&message);
            return;
        }
        let is_state = table::lookup(&message.topic).is_none_or(|r| r.retain != Retain::Never);
        let mut kept = false;
        for sub in self.subs.values() {
            kept |= sub.take(&message, is_state, token.as_ref());
        }
        if let Some(token) = token
            && self.config.keep_session
            && !kept
        {
            // Left over from filters of an earlier version: nobody here will ever take it.
            token.done();
        }
    }

    fn echoed(&mut self, message: &Message) {
        let said = std::str::from_utf8(&message.payload).unwrap_or_default();
        let Some((id, connects)) = said.split_once('.') else {
            return;
        };
        // An echo of an earlier connection says nothing about this listing.
        if connects.parse() != Ok(self.connects) {
            return;
        }
        if let Ok(id) = id.parse::<u64>()
            && let Some(sub) = self.subs.get_mut(&id)
            && let Sink::Collection(queue) = &sub.sink
            && sub.phase == Phase::Listing
        {
            sub.phase = Phase::Live;
            queue.done();
        }
    }

    fn close(&mut self, commands: &mut mpsc::Receiver<Command>) {
        commands.close();
        while let Ok(command) = commands.try_recv() {
            self.take(command);
        }
        self.flight.close();
        for sub in self.subs.values() {
            match &sub.sink {
                Sink::Collection(queue) => queue.close(),
                Sink::Stream(queue) | Sink::Inbox(queue) => queue.close(),
            }
        }
    }
}
