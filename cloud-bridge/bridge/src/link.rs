//! One node's link, while it stands: the session's turns between the socket, the mirror and Kubernetes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edgebus_bus::{NodeName, Topic, payload};
use edgebus_linkproto::{
    Act, Code, Frame, Frames, Ident, Kind, Lane, Put, Session, Ticket, encode,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::ca::Issued;
use crate::cluster::CALL;
use crate::enrol::{Admission, Answer};
use crate::hub::Seat;
use crate::metrics::{add, count, shift};
use crate::mirror::{Feed, Key};
use crate::node;
use crate::rows::ROWS;
use crate::shared::Shared;
use crate::up::{self, Refusal, unreadable};

/// A message is sent once it has grown to this, however much more there is.
const MESSAGE_TARGET: usize = 64 << 10;
/// The other end must take a message within this.
const WRITE: Duration = Duration::from_secs(20);
/// How long a link waits for the first lists of a bridge that has just started.
const LISTS: Duration = Duration::from_secs(3);
/// Everything is compared again so often, which heals what nobody foresaw.
const COMPARE: Duration = Duration::from_secs(600);
/// The watch of Nodes may be that much behind a beat, or ahead of it.
const JUST: Duration = Duration::from_secs(1);
/// What a connection that ends gets to say why.
const GOODBYE: Duration = Duration::from_secs(1);
/// What the last message of a connection gets to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What a node with an ended certificate has to renew it.
const GRACE_TO_RENEW: Duration = Duration::from_secs(60);

mod down;

enum Done {
    Written(Ticket, Result<(), Refusal>),
    Renewed(u64, Result<Issued, Answer>),
    Leased,
    StatusAgain,
    Registered(Result<(), Refusal>),
}

struct Link {
    shared: Arc<Shared>,
    node: NodeName,
    admission: Admission,
    session: Session,
    feed: Arc<Feed>,
    work: JoinSet<Done>,
    started: Instant,
    /// What edged last said of the node.
    status: Option<Value>,
    /// The renewal under way: of no use once this connection is over.
    lease: Option<AbortHandle>,
    mending: bool,
    beat_at: Option<Instant>,
    closing: bool,
    /// When a connection that closes is given up, its last frames written or not.
    close_by: Option<tokio::time::Instant>,
    up_pending: usize,
    down_in_flight: [usize; Lane::ALL.len()],
}

/// Runs until either end closes.
pub async fn serve<S>(
    shared: Arc<Shared>,
    admission: Admission,
    ws: WebSocketStream<S>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let node = admission.node.clone();
    let seat = shared.hub.sit(node.as_str(), &admission.key_hash);
    if let Some(before) = &seat.before {
        // Its last writes must not come after the first of this connection.
        tokio::select! {
            _ = tokio::time::timeout(CALL + WRITE, before.cancelled()) => {}
            () = stop.cancelled() => {}
        }
    }
    count(&shared.metrics.nodes_connected);
    count(&shared.metrics.connections);
    tracing::info!(node = node.as_str(), "link up");
    // Lists come within milliseconds of a bridge's start; without them the node would send all it has.
    let until = Instant::now() + LISTS;
    while !shared.mirror().ready() && Instant::now() < until && !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let feed = Arc::new(Feed::default());
    shared.mirror().subscribe(node.as_str(), feed.clone());
    let mut link = Link::new(shared.clone(), admission, feed.clone());
    let writer = link.turn(ws, &seat, stop).await;
    link.finish().await;
    shared.mirror().unsubscribe(node.as_str(), &feed);
    shared.hub.leave(node.as_str(), &seat);
    // Whoever waits for this place waits for its writes, not for a socket that may be dead.
    drop(seat);
    drop(tokio::time::timeout(LAST_WORDS, writer).await);
    let mut one = 1;
    shift(&shared.metrics.nodes_connected, &mut one, 0);
    tracing::info!(node = node.as_str(), "link down");
}

impl Link {
    fn new(shared: Arc<Shared>, admission: Admission, feed: Arc<Feed>) -> Link {
        let ident = Ident {
            node: admission.node.as_str().to_owned(),
            store_id: String::new(),
            cluster_id: shared.door.cluster_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let session = Session::new(ident, shared.config.budgets.clone(), shared.config.timing);
        let mut link = Link {
            node: admission.node.clone(),
            admission,
            session,
            feed,
            work: JoinSet::new(),
            started: Instant::now(),
            status: None,
            lease: None,
            mending: false,
            beat_at: None,
            closing: false,
            close_by: None,
            up_pending: 0,
            down_in_flight: [0; Lane::ALL.len()],
            shared,
        };
        link.load_held();
        for row in 0..ROWS.len() {
            link.load_row(row);
        }
        link.load_node();
        link.session.connect(0);
        link
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // ---- the socket

    async fn turn<S>(
        &mut self,
        ws: WebSocketStream<S>,
        seat: &Seat,
        stop: CancellationToken,
    ) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sink, mut stream) = ws.split();
        let (to_writer, mut from_link) = mpsc::channel::<Bytes>(2);
        let writer = tokio::spawn(async move {
            while let Some(bytes) = from_link.recv().await {
                let sent = tokio::time::timeout(WRITE, sink.send(Message::Binary(bytes))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            // The connection ends either way; a clean close is a courtesy.
            drop(tokio::time::timeout(Duration::from_secs(1), sink.close()).await);
        });
        let mut kicked = seat.kicked.clone();
        kicked.mark_changed();
        let deadline = tokio::time::sleep(GRACE_TO_RENEW);
        tokio::pin!(deadline);
        let mut compare = tokio::time::interval_at(tokio::time::Instant::now() + COMPARE, COMPARE);
        let mut message: Option<Bytes> = None;
        loop {
            if message.is_none() {
                message = self.compose();
            }
            self.gauge();
            if message.is_none() && self.closing {
                break;
            }
            let wake = self.session.next_wake();
            let wake = wake.map(|ms| (self.started + Duration::from_millis(ms)).into());
            tokio::select! {
                permit = to_writer.reserve(), if message.is_some() => match (permit, message.take()) {
                    (Ok(permit), Some(bytes)) => {
                        add(&self.shared.metrics.bytes_out, bytes.len());
                        permit.send(bytes);
                    }
                    _ => break,
                },
                got = stream.next() => match got {
                    Some(Ok(Message::Binary(bytes))) => self.received(bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                        self.bye(Code::PROTOCOL, "only binary messages travel on a link");
                    }
                    Some(Ok(Message::Close(_))) | None => break,
                    Some(Err(error)) => {
                        tracing::debug!(node = self.node.as_str(), "link: {error}");
                        break;
                    }
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.finished(done),
                    Err(error) => tracing::error!(node = self.node.as_str(), "a write ended badly: {error}"),
                },
                () = self.feed.changed.notified() => self.refresh(),
                () = sleep_until(wake) => {
                    let acts = self.session.on_time(self.now_ms());
                    self.act(acts);
                }
                Ok(()) = kicked.changed() => {
                    let kick = *kicked.borrow_and_update();
                    if let Some((code, why)) = kick {
                        self.bye(code, why);
                    }
                }
                () = stop.cancelled(), if !self.closing => {
                    let changed = self.shared.changed.is_cancelled();
                    let (code, why) = if changed {
                        (Code::CLUSTER_CHANGED, "the cluster behind the bridge changed; nothing was deleted")
                    } else {
                        (Code::SHUTDOWN, "cloud-bridge stops")
                    };
                    self.bye(code, why);
                }
                () = sleep_until(self.close_by) => break,
                _ = compare.tick() => self.session.sender().compare_again(),
                () = &mut deadline, if self.admission.in_grace => {
                    self.admission.in_grace = false;
                    self.bye(Code::FORBIDDEN, "the certificate has ended and was not renewed");
                }
            }
        }
        writer
    }

    fn bye(&mut self, code: Code, why: &str) {
        if !self.closing {
            tracing::info!(
                node = self.node.as_str(),
                code = code.0,
                "closing the link: {why}"
            );
            self.session.bye(code, why);
            self.close();
        }
    }

    fn close(&mut self) {
        self.closing = true;
        let by = tokio::time::Instant::now() + GOODBYE;
        self.close_by.get_or_insert(by);
    }

    fn compose(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.len() < MESSAGE_TARGET {
            let Some(frame) = self.session.next_frame(self.now_ms()) else {
                break;
            };
            if let Err(error) = encode(&frame, &mut out) {
                tracing::error!(
                    node = self.node.as_str(),
                    "{} cannot be sent: {error}",
                    frame.name()
                );
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn gauge(&mut self) {
        let pending = self.session.receiver().pending();
        let lanes = Lane::ALL.map(|lane| self.session.sender().used(lane).0);
        self.set_gauges(pending, lanes);
    }

    fn set_gauges(&mut self, pending: usize, lanes: [usize; Lane::ALL.len()]) {
        let metrics = &self.shared.metrics;
        shift(&metrics.up_pending, &mut self.up_pending, pending);
        let had = self.down_in_flight.iter_mut().zip(lanes);
        for (gauge, (had, has)) in metrics.down_in_flight.iter().zip(had) {
            shift(gauge, had, has);
        }
    }

    fn received(&mut self, bytes: Bytes) {
        add(&self.shared.metrics.bytes_in, bytes.len());
        let frames = match Frames::new(bytes) {
            Ok(frames) => frames,
            Err(error) => return self.bye(Code::PROTOCOL, &error.to_string()),
        };
        for frame in frames {
            match frame {
                Ok(frame) => {
                    let acts = self.session.on_frame(frame, self.now_ms());
                    self.act(acts);
                }
                Err(error) => return self.bye(Code::PROTOCOL, &error.to_string()),
            }
        }
    }

    // ---- up

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Open { peer } => {
                    tracing::info!(
                        node = self.node.as_str(),
                        version = peer.version,
                        store = peer.store_id,
                        "link open"
                    );
                    let (shared, node) = (self.shared.clone(), self.node.clone());
                    self.work.spawn(async move {
                        Done::Registered(node::register(&shared, &node, None).await)
                    });
                }
                Act::Apply { ticket, put } => self.apply(ticket, put),
                Act::Beat { put } => self.beat(&put),
                Act::Remove {
                    ticket,
                    kind,
                    topic,
                    ..
                } => {
                    let (shared, node) = (self.shared.clone(), self.node.clone());
                    self.work.spawn(async move {
                        Done::Written(ticket, up::remove(shared, node, kind, topic).await)
                    });
                }
                Act::Rejected {
                    kind,
                    topic,
                    code,
                    why,
                } => {
                    count(&self.shared.metrics.edge_rejected);
                    tracing::warn!(node = self.node.as_str(), %kind, %topic, code = code.0, "the node refuses it: {why}");
                }
                Act::Delayed {
                    topic, code, why, ..
                } => {
                    tracing::debug!(node = self.node.as_str(), %topic, code = code.0, "the node cannot take it now: {why}");
                }
                Act::Renew { seq, csr_pem } => {
                    let (shared, node) = (self.shared.clone(), self.node.clone());
                    self.work.spawn(async move {
                        Done::Renewed(seq, shared.door.renew(&node, &csr_pem).await)
                    });
                }
                Act::Stream(Frame::Open { stream, .. }) => {
                    let why = "this bridge serves no streams".to_owned();
                    self.session.send_stream(Frame::Close {
                        stream,
                        code: Code::NOT_FOUND,
                        why,
                    });
                }
                Act::Closed { code, why, by_peer } => {
                    tracing::info!(
                        node = self.node.as_str(),
                        code = code.0,
                        by_peer,
                        "link closes: {why}"
                    );
                    self.close();
                }
                Act::Stream(_)
                | Act::Synced { .. }
                | Act::EventDone { .. }
                | Act::Renewed { .. }
                | Act::RenewRefused { .. }
                | Act::Rtt { .. } => {}
            }
        }
    }

    fn apply(&mut self, ticket: Ticket, put: Put) {
        let (shared, node) = (self.shared.clone(), self.node.clone());
        if put.kind.as_str() != Kind::NODE_STATUS {
            self.work
                .spawn(async move { Done::Written(ticket, up::apply(shared, node, put).await) });
            return;
        }
        let said = match (Topic::parse(&put.topic), payload::read(&put.body)) {
            (Ok(Topic::NodeStatus {}), Ok(said)) => node::read_status(&self.node, said),
            (_, Err(error)) => Err(unreadable(&put, &error)),
            _ => Err(Refusal::never(
                Code::INVALID,
                format!("{:?} is not where a node's status is", put.topic),
            )),
        };
        match said {
            Ok(status) => {
                self.status = Some(status.clone());
                self.work.spawn(async move {
                    Done::Written(ticket, node::write_status(&shared, &node, &status).await)
                });
            }
            Err(refusal) => self.finished(Done::Written(ticket, Err(refusal))),
        }
    }

    /// The node lives: its Lease is renewed, and if the API thinks otherwise of it, its status is written again.
    fn beat(&mut self, put: &Put) {
        if put.kind.as_str() != Kind::BEAT {
            return;
        }
        if self.lease.is_none() {
            let (shared, node, at) = (self.shared.clone(), self.node.clone(), Instant::now());
            let lease = self.work.spawn(async move {
                node::renew_lease(&shared, &node, at).await;
                Done::Leased
            });
            self.lease = Some(lease);
        }
        self.beat_at = Some(Instant::now());
        self.mend();
    }

    /// The node controller took a node that lives for dead: its status is written again. Only a beat that has
    /// just come says that it lives; whatever is older, the controller knows as well.
    fn mend(&mut self) {
        if self.beat_at.is_none_or(|at| at.elapsed() > JUST) {
            return;
        }
        let says = |status: &&Value| !node::ready(status).is_empty();
        let Some(status) = self.status.as_ref().filter(says).filter(|_| !self.mending) else {
            return;
        };
        let there = self
            .shared
            .mirror()
            .node(self.node.as_str())
            .map(|node| node.ready.clone());
        if there.as_deref() != Some(node::ready(status)) {
            self.mending = true;
            let (shared, node, status) = (self.shared.clone(), self.node.clone(), status.clone());
            self.work.spawn(async move {
                if let Err(refusal) = node::write_status(&shared, &node, &status).await {
                    tracing::warn!(node = node.as_str(), "status: {}", refusal.why);
                }
                // Whoever else writes it is not fought at full speed.
                tokio::time::sleep(JUST / 10).await;
                Done::StatusAgain
            });
        }
    }

    fn finished(&mut self, done: Done) {
        match done {
            Done::Written(ticket, Ok(())) => {
                let acts = self.session.done(ticket);
                self.act(acts);
            }
            Done::Written(ticket, Err(refusal)) => {
                if !refusal.permanent {
                    count(&self.shared.metrics.api_write_errors);
                }
                let Refusal {
                    code,
                    why,
                    permanent,
                } = refusal;
                let acts = self.session.failed(ticket, code, &why, permanent);
                self.act(acts);
            }
            Done::Renewed(seq, Ok(issued)) => {
                let ca = self.shared.door.ca.cert_pem().to_owned();
                self.session.renewed(seq, issued.cert_pem, ca);
            }
            Done::Renewed(seq, Err(answer)) => {
                self.session
                    .refuse(seq, Code(answer.status.as_u16()), answer.body.why);
            }
            Done::Leased => self.lease = None,
            Done::StatusAgain => {
                self.mending = false;
                self.mend();
            }
            Done::Registered(Ok(())) => {}
            Done::Registered(Err(refusal)) => {
                tracing::warn!(node = self.node.as_str(), "registering: {}", refusal.why);
            }
        }
    }

    /// Waits for writes under way, so that the next connection's come after them.
    async fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.abort();
        }
        let all = async { while self.work.join_next().await.is_some() {} };
        tokio::time::timeout(CALL, all).await.unwrap_or_default();
        self.work.shutdown().await;
        self.set_gauges(0, [0; Lane::ALL.len()]);
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Words from tables of ours: `rows` has a test for its own.
fn kind(word: &str) -> Kind {
    Kind::new(word).expect("kinds are constants that are valid")
}

fn twin_topic(key: &Key) -> Option<String> {
    let topic = Topic::Twin {
        ns: key.ns.parse().ok()?,
        name: key.name.parse().ok()?,
    };
    Some(topic.to_string())
}
