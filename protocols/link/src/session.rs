//! One end of the link, whole: the greeting, both halves, the events lane, renewal, and whether the other end
//! still lives. A [`Session`] outlives connections; what it knows of the other end does not.
//!
//! ```text
//! connect(now) ─► Greeting ── Hello of the same protocol and cluster ─► Open
//!                    └────── another protocol or cluster ────────────► Refused: nothing is taken, nothing sent
//! ```
//! The caller turns: feed [`Session::on_frame`], write [`Session::next_frame`] until it is empty, sleep until
//! [`Session::next_wake`], and call [`Session::on_time`]. Times are milliseconds of any monotonic clock.

use std::collections::VecDeque;

use crate::frame::PROTO;
use crate::receiver::Effect;
use crate::{Act, Budgets, Code, EventSender, Frame, Hello, Kind, Lane, Receiver, Sender, Ticket};

/// Who this end is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ident {
    pub node: String,
    pub store_id: String,
    /// Pinned at join at the edge, uid of kube-system in the cloud. Empty never matches anything.
    pub cluster_id: String,
    pub version: String,
}

/// Liveness, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A `Ping` after so long without anything received.
    pub ping_ms: u64,
    /// The connection counts as dead after so long without anything received.
    pub dead_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            ping_ms: 10_000,
            dead_ms: 30_000,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Down,
    Greeting,
    Open,
    Refused,
}

/// More answers than this without the caller writing any means that the other end floods.
const OUTBOX_MAX: usize = 8192;

/// See the module.
#[derive(Debug)]
pub struct Session {
    me: Ident,
    timing: Timing,
    state: State,
    sender: Sender,
    events: EventSender,
    receiver: Receiver,
    outbox: VecDeque<Frame>,
    last_seq: u64,
    heard_ms: u64,
    pinged_ms: Option<u64>,
    renewing: Option<u64>,
}

impl Session {
    pub fn new(me: Ident, budgets: Budgets, timing: Timing) -> Session {
        let events = EventSender::new(event_kind(), budgets.of(Lane::Event));
        Session {
            me,
            timing,
            state: State::Down,
            sender: Sender::new(budgets),
            events,
            receiver: Receiver::new(),
            outbox: VecDeque::new(),
            last_seq: 0,
            heard_ms: 0,
            pinged_ms: None,
            renewing: None,
        }
    }

    /// What should be at the other end.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The events lane; feed it from a spool.
    pub fn events(&mut self) -> &mut EventSender {
        &mut self.events
    }

    /// What is held here.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    pub fn ident(&self) -> &Ident {
        &self.me
    }

    /// Another store or pin from the next connection on.
    pub fn set_ident(&mut self, me: Ident) {
        self.me = me;
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Everything that should be there is there and acknowledged, events included.
    pub fn is_settled(&self) -> bool {
        self.is_open() && self.sender.is_settled() && self.events.is_settled()
    }

    /// A connection stands: greet.
    pub fn connect(&mut self, now_ms: u64) {
        self.disconnect();
        self.state = State::Greeting;
        self.heard_ms = now_ms;
        self.outbox.push_back(Frame::Hello(Hello {
            proto: PROTO,
            node: self.me.node.clone(),
            store_id: self.me.store_id.clone(),
            cluster_id: self.me.cluster_id.clone(),
            version: self.me.version.clone(),
            zstd: false,
            have: self.receiver.have(),
        }));
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.state = State::Down;
        self.sender.disconnected();
        self.events.disconnected();
        self.receiver.disconnected();
        self.outbox.clear();
        self.last_seq = 0;
        self.pinged_ms = None;
        self.renewing = None;
    }

    /// Says goodbye: [`Session::next_frame`] yields the `Bye`, then the caller closes.
    pub fn bye(&mut self, code: Code, why: &str) {
        if self.state != State::Down {
            self.state = State::Refused;
            self.outbox.push_back(Frame::Bye {
                code,
                why: why.to_owned(),
            });
        }
    }

    /// Asks for a new certificate; true if the question goes out.
    pub fn renew(&mut self, csr_pem: String) -> bool {
        if self.state != State::Open || self.renewing.is_some() {
            return false;
        }
        self.last_seq += 1;
        self.renewing = Some(self.last_seq);
        self.outbox.push_back(Frame::Renew {
            seq: self.last_seq,
            csr_pem,
        });
        true
    }

    /// Answers [`Act::Renew`].
    pub fn renewed(&mut self, seq: u64, cert_pem: String, ca_pem: String) {
        self.send(Frame::Renewed {
            seq,
            cert_pem,
            ca_pem,
        });
    }

    /// Answers [`Act::Renew`] with a refusal.
    pub fn refuse(&mut self, seq: u64, code: Code, why: String) {
        self.send(Frame::Nack {
            seq,
            code,
            why,
            permanent: true,
        });
    }

    /// Writes a frame of a byte stream. False: too much waits already; credit was not kept.
    pub fn send_stream(&mut self, frame: Frame) -> bool {
        let room = self.state == State::Open && self.outbox.len() < OUTBOX_MAX;
        if room {
            self.outbox.push_back(frame);
        }
        room
    }

    pub fn done(&mut self, ticket: Ticket) -> Vec<Act> {
        let effects = self.receiver.done(ticket);
        self.acts(effects)
    }

    pub fn failed(&mut self, ticket: Ticket, code: Code, why: &str, permanent: bool) -> Vec<Act> {
        let effects = self
            .receiver
            .failed(ticket, code, why.to_owned(), permanent);
        self.acts(effects)
    }

    pub fn on_frame(&mut self, frame: Frame, now_ms: u64) -> Vec<Act> {
        self.heard_ms = now_ms;
        self.pinged_ms = None;
        match (self.state, frame) {
            (State::Down | State::Refused, Frame::Bye { code, why }) => {
                vec![Act::Closed {
                    code,
                    why,
                    by_peer: true,
                }]
            }
            (State::Down | State::Refused, _) => Vec::new(),
            (_, Frame::Bye { code, why }) => {
                self.state = State::Refused;
                vec![Act::Closed {
                    code,
                    why,
                    by_peer: true,
                }]
            }
            (State::Greeting, Frame::Hello(peer)) => self.greeted(peer),
            (State::Greeting, other) => self.close(
                Code::PROTOCOL,
                format!(
                    "the first frame must be Hello, this one is {}",
                    other.name()
                ),
            ),
            (State::Open, frame) => self.opened(frame, now_ms),
        }
    }

    /// The next frame to write, if any may go now.
    pub fn next_frame(&mut self, now_ms: u64) -> Option<Frame> {
        if let Some(frame) = self.outbox.pop_front() {
            return Some(frame);
        }
        if self.state != State::Open {
            return None;
        }
        let frame = self.sender.poll(now_ms, &mut self.last_seq);
        frame.or_else(|| self.events.poll(now_ms, &mut self.last_seq))
    }

    /// Liveness; call it at [`Session::next_wake`] or any other time.
    pub fn on_time(&mut self, now_ms: u64) -> Vec<Act> {
        if matches!(self.state, State::Down | State::Refused) {
            return Vec::new();
        }
        // Also while nothing can be written: or the caller would be woken again and again for the same.
        self.sender.wake(now_ms);
        self.events.wake(now_ms);
        let quiet = now_ms.saturating_sub(self.heard_ms);
        if quiet >= self.timing.dead_ms {
            let why = format!("nothing heard for {quiet} ms");
            return self.close(Code::UNAVAILABLE, why);
        }
        let open = self.state == State::Open;
        if open && quiet >= self.timing.ping_ms && self.pinged_ms.is_none() {
            self.pinged_ms = Some(now_ms);
            self.outbox.push_back(Frame::Ping { at_ms: now_ms });
        }
        Vec::new()
    }

    /// Tells the other end what is held here of a kind, so that it compares: heals what no rule foresaw, and
    /// fetches again what was [`Receiver::load`]ed as unknown meanwhile.
    pub fn recheck(&mut self, kind: &Kind) {
        let digest = self.receiver.digest(kind);
        self.send(Frame::Have {
            kind: kind.clone(),
            digest,
        });
    }

    /// Measures the round trip now.
    pub fn ping(&mut self, now_ms: u64) {
        self.send(Frame::Ping { at_ms: now_ms });
    }

    /// When to come back even if nothing arrives.
    pub fn next_wake(&self) -> Option<u64> {
        let alive = match self.state {
            State::Down | State::Refused => return None,
            State::Open if self.pinged_ms.is_none() => self.heard_ms + self.timing.ping_ms,
            State::Open | State::Greeting => self.heard_ms + self.timing.dead_ms,
        };
        let others = [self.sender.next_wake(), self.events.next_wake()];
        others.into_iter().flatten().chain([alive]).min()
    }

    fn greeted(&mut self, peer: Hello) -> Vec<Act> {
        if peer.proto != PROTO {
            let why = format!(
                "the other end speaks protocol {}, this one {PROTO}",
                peer.proto
            );
            return self.close(Code::PROTOCOL, why);
        }
        if peer.node != self.me.node {
            let why = format!(
                "this link is for node {}, not for {}",
                self.me.node, peer.node
            );
            return self.close(Code::FORBIDDEN, why);
        }
        if peer.cluster_id != self.me.cluster_id || peer.cluster_id.is_empty() {
            let why = format!(
                "cluster changed: this end belongs to cluster {:?}, the other to {:?}; nothing was taken or deleted",
                self.me.cluster_id, peer.cluster_id
            );
            return self.close(Code::CLUSTER_CHANGED, why);
        }
        self.state = State::Open;
        self.sender.connected(peer.have.clone());
        self.events.connected();
        vec![Act::Open { peer }]
    }

    fn opened(&mut self, frame: Frame, now_ms: u64) -> Vec<Act> {
        if self.outbox.len() > OUTBOX_MAX {
            let why = format!("more than {OUTBOX_MAX} answers wait to be written");
            return self.close(Code::PROTOCOL, why);
        }
        let effects = match frame {
            Frame::Put(put) => self.receiver.on_put(put),
            Frame::Del {
                seq,
                kind,
                topic,
                uid,
            } => self.receiver.on_del(seq, kind, &topic, uid),
            Frame::Manifest {
                kind,
                part,
                complete,
                last,
                entries,
            } => self
                .receiver
                .on_manifest(kind, part, complete, last, entries),
            Frame::Same { kind, digest } => self.receiver.on_same(&kind, digest),
            Frame::Ack { seq } => return self.acked(seq),
            Frame::Nack {
                seq,
                code,
                why,
                permanent,
            } => {
                return self.nacked(seq, code, why, permanent, now_ms);
            }
            Frame::Want { kind, last, topics } => {
                self.sender.on_want(&kind, last, topics);
                return Vec::new();
            }
            Frame::Have { kind, digest } => {
                self.sender.on_have(&kind, digest, now_ms);
                return Vec::new();
            }
            Frame::Ping { at_ms } => {
                self.outbox.push_back(Frame::Pong { at_ms });
                return Vec::new();
            }
            Frame::Pong { at_ms } => {
                return vec![Act::Rtt {
                    ms: now_ms.saturating_sub(at_ms),
                }];
            }
            Frame::Renew { seq, csr_pem } => return vec![Act::Renew { seq, csr_pem }],
            Frame::Renewed {
                seq,
                cert_pem,
                ca_pem,
            } => {
                if self.renewing.take_if(|asked| *asked == seq).is_none() {
                    return Vec::new();
                }
                return vec![Act::Renewed { cert_pem, ca_pem }];
            }
            Frame::Open { .. }
            | Frame::Data { .. }
            | Frame::Credit { .. }
            | Frame::Close { .. } => return vec![Act::Stream(frame)],
            Frame::Hello(_) => {
                return self.close(Code::PROTOCOL, "a second Hello".to_owned());
            }
            Frame::Bye { code, why } => {
                return vec![Act::Closed {
                    code,
                    why,
                    by_peer: true,
                }];
            }
        };
        self.acts(effects)
    }

    fn acked(&mut self, seq: u64) -> Vec<Act> {
        if let Some(id) = self.events.on_ack(seq) {
            return vec![Act::EventDone { id, refused: None }];
        }
        // What is settled needs no word: the caller sees `is_settled`.
        self.sender.on_ack(seq);
        Vec::new()
    }

    fn nacked(
        &mut self,
        seq: u64,
        code: Code,
        why: String,
        permanent: bool,
        now_ms: u64,
    ) -> Vec<Act> {
        if self.renewing.take_if(|asked| *asked == seq).is_some() {
            return vec![Act::RenewRefused { code, why }];
        }
        if self.events.knows(seq) {
            let id = self.events.on_nack(seq, permanent, now_ms);
            let done = id.map(|id| Act::EventDone {
                id,
                refused: Some(format!("{code}: {why}")),
            });
            return done.into_iter().collect();
        }
        let act = self.sender.on_nack(seq, code, why, permanent, now_ms);
        act.into_iter().collect()
    }

    fn acts(&mut self, effects: Vec<Effect>) -> Vec<Act> {
        let mut acts = Vec::new();
        for effect in effects {
            match effect {
                Effect::Do(act) => acts.push(act),
                Effect::Send(frame) => self.send(frame),
                Effect::Broken { why } => acts.extend(self.close(Code::PROTOCOL, why)),
            }
        }
        acts
    }

    fn send(&mut self, frame: Frame) {
        if self.state == State::Open {
            self.outbox.push_back(frame);
        }
    }

    fn close(&mut self, code: Code, why: String) -> Vec<Act> {
        self.bye(code, &why);
        vec![Act::Closed {
            code,
            why,
            by_peer: false,
        }]
    }
}

fn event_kind() -> Kind {
    Kind::new(Kind::EVENT).expect("a constant that is a valid kind")
}
