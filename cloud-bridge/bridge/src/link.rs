//! One node's link, while it stands: the session's turns between the socket, the mirror and Kubernetes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edgebus_bus::{NodeName, Topic, payload};
use edgebus_linkproto::{
    Act, Code, Frame, Frames, Hash, Ident, Item, Kind, Put, Session, Ticket, encode,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::ca::Issued;
use crate::cluster::CALL;
use crate::enrol::{Admission, Answer};
use crate::hub::Seat;
use crate::metrics::{add, count, shift};
use crate::mirror::{Dirty, Feed, Key, Wanted};
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
/// What a node with an ended certificate has to renew it.
const GRACE_TO_RENEW: Duration = Duration::from_secs(60);

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
    leasing: bool,
    mending: bool,
    closing: bool,
    up_pending: usize,
    down_in_flight: usize,
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
    link.turn(ws, &seat, stop).await;
    link.finish().await;
    shared.mirror().unsubscribe(node.as_str(), &feed);
    shared.hub.leave(node.as_str(), &seat);
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
            leasing: false,
            mending: false,
            closing: false,
            up_pending: 0,
            down_in_flight: 0,
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

    // ---- down

    /// Twins that the API's DeviceStatuses were made from: they need not come again.
    fn load_held(&mut self) {
        let mirror = self.shared.mirror();
        if !mirror.statuses_known() || !mirror.devices_complete() {
            return;
        }
        let kind = kind(Kind::TWIN);
        for key in mirror.devices_of(self.node.as_str()) {
            let (Some(device), Some(status)) = (mirror.device(&key), mirror.status(&key)) else {
                continue;
            };
            let (Some((uid, hash)), Some(topic)) = (&status.seen, twin_topic(&key)) else {
                continue;
            };
            if status.owner == device.uid {
                self.session.receiver().load(&kind, &topic, uid, *hash);
            }
        }
    }

    fn load_row(&mut self, row: usize) {
        let Some(about) = ROWS.get(row) else {
            return;
        };
        let (wanted, complete) = {
            let mirror = self.shared.mirror();
            if !mirror.settled(row) {
                return;
            }
            (
                mirror.all_wanted(self.node.as_str(), row),
                mirror.complete(row),
            )
        };
        let kind = kind(about.kind);
        let items: Vec<(String, Item)> = wanted
            .into_iter()
            .filter_map(|wanted| self.item(about.sealed, &kind, wanted))
            .collect();
        let refused = if complete {
            self.session.sender().replace(&kind, items)
        } else {
            let sender = self.session.sender();
            items
                .into_iter()
                .filter_map(|(topic, item)| sender.set(&kind, &topic, item).err())
                .collect()
        };
        for error in refused {
            tracing::error!(node = self.node.as_str(), "cannot go to the node: {error}");
        }
    }

    fn load_node(&mut self) {
        let (wanted, known) = {
            let mirror = self.shared.mirror();
            (mirror.node_spec(self.node.as_str()), mirror.nodes_known())
        };
        let kind = kind(Kind::NODE);
        // A Node that is gone is made again in a moment: its spec stays.
        if let Some((topic, item)) = wanted.and_then(|wanted| self.item(false, &kind, wanted)) {
            if let Err(error) = self.session.sender().set(&kind, &topic, item) {
                tracing::error!(node = self.node.as_str(), "cannot go to the node: {error}");
            }
            self.session.sender().set_complete(&kind, known);
        }
    }

    /// What travels: the object as it is, or sealed to the node.
    fn item(&mut self, sealed: bool, kind: &Kind, wanted: Wanted) -> Option<(String, Item)> {
        let Wanted {
            topic,
            uid,
            mut hash,
            mut body,
        } = wanted;
        if sealed {
            let record = &self.admission.record;
            let parts: [&[u8]; 4] = [
                topic.as_bytes(),
                uid.as_bytes(),
                record.key_id.as_bytes(),
                &body,
            ];
            hash = self.shared.door.ca.mac(&parts);
            // Sealing the same twice gives two boxes; what is there already is as good.
            let there = self.session.sender().get(kind, &topic);
            if let Some(there) = there.filter(|there| there.uid == uid && there.hash == hash) {
                return Some((topic, there.clone()));
            }
            let sealed = edgebus_api::seal::public_from_base64(&record.sealing_pub)
                .and_then(|public| edgebus_api::seal::seal(&public, &topic, &body));
            match sealed {
                Ok(text) => {
                    let text = json!({ "key_id": record.key_id, "box": text }).to_string();
                    body = Bytes::from(text);
                }
                Err(error) => {
                    tracing::error!(node = self.node.as_str(), topic, "not sealed: {error}");
                    return None;
                }
            }
        }
        Some((topic, Item { uid, hash, body }))
    }

    /// Brings what changed in the mirror into the session.
    fn refresh(&mut self) {
        let Dirty {
            objects,
            lists,
            node,
            statuses,
        } = self.feed.take();
        for (row, key) in objects {
            let Some(about) = ROWS.get(row) else {
                continue;
            };
            let (settled, wanted) = {
                let mirror = self.shared.mirror();
                (
                    mirror.settled(row),
                    mirror.wanted(self.node.as_str(), row, &key),
                )
            };
            if !settled {
                continue; // the whole list follows
            }
            let kind = kind(about.kind);
            match wanted.and_then(|wanted| self.item(about.sealed, &kind, wanted)) {
                Some((topic, item)) => {
                    if let Err(error) = self.session.sender().set(&kind, &topic, item) {
                        tracing::error!(
                            node = self.node.as_str(),
                            "cannot go to the node: {error}"
                        );
                    }
                }
                None => {
                    if let Some(topic) = crate::mirror::topic(about, &key) {
                        self.session.sender().remove(&kind, &topic);
                    }
                }
            }
        }
        for row in lists {
            self.load_row(row);
        }
        if node {
            self.load_node();
        }
        let twin = kind(Kind::TWIN);
        for key in statuses {
            self.doubt(&twin, &key);
        }
    }

    /// A DeviceStatus changed that is not what this node's twin made of it: it has to come again.
    fn doubt(&mut self, twin: &Kind, key: &Key) {
        let Some(topic) = twin_topic(key) else {
            return;
        };
        let seen = self
            .shared
            .mirror()
            .status(key)
            .and_then(|status| status.seen.clone());
        let mut held = self.session.receiver().held(twin);
        let Some((uid, hash)) =
            held.find_map(|(t, uid, hash)| (t == topic).then(|| (uid.to_owned(), *hash)))
        else {
            return;
        };
        drop(held);
        if seen.is_none() && hash != Hash::UNKNOWN {
            self.session
                .receiver()
                .load(twin, &topic, &uid, Hash::UNKNOWN);
        }
    }

    // ---- the socket

    async fn turn<S>(&mut self, ws: WebSocketStream<S>, seat: &Seat, stop: CancellationToken)
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
                _ = compare.tick() => self.session.sender().compare_again(),
                () = &mut deadline, if self.admission.in_grace => {
                    self.admission.in_grace = false;
                    self.bye(Code::FORBIDDEN, "the certificate has ended and was not renewed");
                }
            }
        }
        drop(to_writer);
        drop(tokio::time::timeout(Duration::from_secs(5), writer).await);
    }

    fn bye(&mut self, code: Code, why: &str) {
        if !self.closing {
            tracing::info!(
                node = self.node.as_str(),
                code = code.0,
                "closing the link: {why}"
            );
            self.session.bye(code, why);
            self.closing = true;
        }
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
        let metrics = &self.shared.metrics;
        shift(
            &metrics.up_pending,
            &mut self.up_pending,
            self.session.receiver().pending(),
        );
        shift(
            &metrics.down_in_flight,
            &mut self.down_in_flight,
            self.session.sender().in_flight(),
        );
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
                    self.closing = true;
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
        if !self.leasing {
            self.leasing = true;
            let (shared, node, at) = (self.shared.clone(), self.node.clone(), Instant::now());
            self.work.spawn(async move {
                node::renew_lease(&shared, &node, at).await;
                Done::Leased
            });
        }
        let Some(status) = self.status.as_ref().filter(|_| !self.mending) else {
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
            Done::Leased => self.leasing = false,
            Done::StatusAgain => self.mending = false,
            Done::Registered(Ok(())) => {}
            Done::Registered(Err(refusal)) => {
                tracing::warn!(node = self.node.as_str(), "registering: {}", refusal.why);
            }
        }
    }

    /// Waits for writes under way, so that the next connection's come after them.
    async fn finish(&mut self) {
        let all = async { while self.work.join_next().await.is_some() {} };
        if self.leasing {
            // A beat of this connection counts no longer.
            tokio::time::timeout(Duration::from_secs(1), all)
                .await
                .unwrap_or_default();
        } else {
            tokio::time::timeout(CALL, all).await.unwrap_or_default();
        }
        self.work.shutdown().await;
        let metrics = &self.shared.metrics;
        shift(&metrics.up_pending, &mut self.up_pending, 0);
        shift(&metrics.down_in_flight, &mut self.down_in_flight, 0);
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
