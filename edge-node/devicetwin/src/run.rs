//! The loop around the core: reads the bus, hands bursts of it to the core, publishes what follows
//! and acknowledges the inbox when that is acknowledged.

use crate::core::{Core, Input, Out};
use crate::intake;
use crate::losses::Losses;
use crate::time::Now;
use edgebus_bus::{NodeName, Topic};
use edgebus_client::{Acknowledge, Bus, Collection, Event, Inbox, Message, Receipt, Subscription};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Inputs that are taken together before anything is published.
const BURST: usize = 512;
/// Pause before what the broker could not take is put again.
const RETRY: Duration = Duration::from_secs(1);

/// What devicetwin needs to know.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The node's name, for KubeEdge's membership topics.
    pub node: Option<NodeName>,
}

/// Why devicetwin ended.
#[derive(Debug, thiserror::Error)]
#[error("device twins: {doing}: {source}")]
pub struct Error {
    /// What was being attempted.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: edgebus_client::Error,
}

fn at(doing: &'static str) -> impl FnOnce(edgebus_client::Error) -> Error {
    move |source| Error { doing, source }
}

/// Serves the twins until `stop`, or until the bus is closed or refuses what is needed.
pub async fn run(config: Config, bus: Bus, stop: CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = serve(config, &bus) => result,
    }
}

struct Loop<'a> {
    bus: &'a Bus,
    core: Core,
    state: Collection,
    inbox: Inbox,
    answers: Subscription,
    /// Inbox messages whose consequences are not on the bus yet.
    unacked: Vec<Acknowledge>,
    retry: bool,
    losses: Losses,
}

enum Next {
    State(Event),
    Inbox(Message, Acknowledge),
    Answer(Message),
    Due,
    Quiet,
    Closed,
}

async fn serve(config: Config, bus: &Bus) -> Result<(), Error> {
    let mut core = Core::new(config.node, edgebus_client::random_id());
    if !read_own(bus, &mut core).await? {
        return Ok(());
    }
    let mut state = bus
        .collection(intake::filters(intake::STATE))
        .await
        .map_err(at("reading objects"))?;
    while !core.is_ready() {
        match state.next().await {
            None => return Ok(()),
            Some(event) => take(&mut core, event.map_err(at("reading objects"))?),
        }
    }
    info!(devices = core.devices(), "device twins are up");
    let answers = bus
        .subscribe(intake::filters(intake::ANSWERS))
        .await
        .map_err(at("subscribing to answers of mappers"))?;
    let mut this = Loop {
        bus,
        core,
        state,
        // Opened last: what is in it was said of devices that are known by now.
        inbox: bus.inbox(),
        answers,
        unacked: Vec::new(),
        retry: false,
        losses: Losses::default(),
    };
    loop {
        this.publish().await?;
        if !this.burst().await? {
            return Ok(());
        }
    }
}

/// Reads our own topics. False once the bus is closed.
async fn read_own(bus: &Bus, core: &mut Core) -> Result<bool, Error> {
    let doing = "reading own topics";
    let mut own = bus
        .collection(intake::filters(intake::OWN))
        .await
        .map_err(at(doing))?;
    loop {
        match own.next().await {
            None => return Ok(false),
            Some(event) => match event.map_err(at(doing))? {
                Event::Init => core.step(Input::OwnBegins, Now::read()),
                Event::InitApply { topic, payload } | Event::Apply { topic, payload } => {
                    if let Some(input) = intake::input(&topic, Some(&payload)) {
                        core.step(input, Now::read());
                    }
                }
                Event::Delete { .. } => {}
                Event::InitDone => {
                    core.step(Input::OwnEnds, Now::read());
                    return Ok(true);
                }
            },
        }
    }
}

fn take(core: &mut Core, event: Event) {
    let input = match event {
        Event::Init => Some(Input::ListingBegins),
        Event::InitDone => Some(Input::ListingEnds),
        Event::InitApply { topic, payload } | Event::Apply { topic, payload } => {
            intake::input(&topic, Some(&payload))
        }
        Event::Delete { topic } => intake::input(&topic, None),
    };
    if let Some(input) = input {
        core.step(input, Now::read());
    }
}

impl Loop<'_> {
    /// Waits for something, then takes all that is there, up to a limit. False once the bus is
    /// closed.
    async fn burst(&mut self) -> Result<bool, Error> {
        let mut next = self.next(true).await?;
        for _ in 0..BURST {
            match next {
                Next::Closed => return Ok(false),
                Next::Quiet | Next::Due => return Ok(true),
                Next::State(event) => {
                    let relisted = event == Event::InitDone;
                    take(&mut self.core, event);
                    // The bus was away: it may have come back without our documents.
                    if relisted && !read_own(self.bus, &mut self.core).await? {
                        return Ok(false);
                    }
                }
                Next::Inbox(message, ack) => {
                    self.unacked.push(ack);
                    match intake::input(&message.topic, Some(&message.payload)) {
                        Some(input) => self.core.step(input, Now::read()),
                        None => debug!(topic = %message.topic, "nothing to do"),
                    }
                }
                Next::Answer(message) => {
                    if let Some(input) = intake::input(&message.topic, Some(&message.payload)) {
                        self.core.step(input, Now::read());
                    }
                }
            }
            next = self.next(false).await?;
        }
        Ok(true)
    }

    /// The next thing that happens; without `wait`, only if it has happened.
    async fn next(&mut self, wait: bool) -> Result<Next, Error> {
        let due = match (wait, self.retry, self.core.next_due()) {
            (false, ..) => Duration::ZERO,
            (true, true, _) => RETRY,
            (true, false, Some(at)) => {
                Duration::from_millis(u64::try_from(at - Now::read().0).unwrap_or(0))
            }
            (true, false, None) => Duration::from_secs(3600),
        };
        let quiet = async {
            if wait {
                tokio::time::sleep(due).await;
            }
        };
        tokio::select! {
            biased;
            event = self.state.next() => match event {
                None => Ok(Next::Closed),
                Some(event) => event.map(Next::State).map_err(at("reading objects")),
            },
            delivery = self.inbox.next() => match delivery {
                None => Ok(Next::Closed),
                Some(delivery) => {
                    let (message, ack) = delivery.map_err(at("reading the inbox"))?.into_parts();
                    Ok(Next::Inbox(message, ack))
                }
            },
            answer = self.answers.next() => match answer {
                None => Ok(Next::Closed),
                Some(answer) => answer.map(Next::Answer).map_err(at("reading answers of mappers")),
            },
            () = quiet => Ok(if wait { Next::Due } else { Next::Quiet }),
        }
    }

    /// Publishes what follows; then the inbox may forget what it followed from.
    async fn publish(&mut self) -> Result<(), Error> {
        if !self.core.is_settled() {
            return Ok(());
        }
        self.retry = false;
        let (mut taken, mut refused) = (0, 0);
        loop {
            let mut under_way = Vec::new();
            for Out { topic, payload } in self.core.flush(Now::read()) {
                match self.post(&topic, payload).await {
                    Ok((is_state, receipt)) => under_way.push((topic, is_state, receipt)),
                    Err(e) => warn!(%topic, error = %e, "not published"),
                }
            }
            for (topic, is_state, receipt) in under_way {
                let is_event = matches!(Topic::parse(&topic), Ok(Topic::Event { .. }));
                match receipt.acknowledged().await {
                    Ok(()) => taken += u64::from(is_event),
                    Err(edgebus_client::Error::Closed) => return Ok(()),
                    Err(e) => {
                        warn!(%topic, error = %e, "not published");
                        refused += u64::from(is_event);
                        if is_state && e.can_retry() {
                            self.core.refused(&topic);
                            self.retry = true;
                        }
                    }
                }
            }
            if self.retry || !self.core.has_more() {
                break;
            }
        }
        if let Some((state, why)) = self.losses.step(taken, refused) {
            // Fails only once the bus is closed, and then the next to be read is its end.
            drop(self.bus.set_health(state, Some(why)).await);
        }
        if !self.retry {
            for ack in self.unacked.drain(..) {
                ack.ack();
            }
        }
        Ok(())
    }

    async fn post(&self, topic: &str, payload: Vec<u8>) -> edgebus_client::Result<(bool, Receipt)> {
        let message = Message::new(topic, payload)?;
        let is_state = message.retain;
        Ok((is_state, self.bus.post(message).await?))
    }
}
