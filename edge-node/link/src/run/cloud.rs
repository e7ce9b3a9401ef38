//! The cloud's side of the loop: identity, dialling, and what the session says.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use edgebus_bus::Topic;
use edgebus_bus::payload::LinkUp;
use edgebus_client::Message;
use edgebus_linkproto::{Act, Code, Frame, Frames, Ident, Kind};
use jiff::Timestamp;

use super::{End, Link, Way, What, chain, dice};
use crate::backoff::Backoff;
use crate::dial::{self, DialError, Server, Socket};
use crate::identity::{self, Identity};
use crate::line::Line;
use crate::mirror;
use crate::network::Network;
use crate::spool::SpoolError;

/// An attempt that takes longer than this may be lost in a network that is gone.
const DIAL_USUAL: Duration = Duration::from_secs(1);
/// A heartbeat older than this says nothing about now.
const BEAT_AGE: Duration = Duration::from_secs(10);

impl Link {
    /// The node was joined, joined anew, or reset.
    pub(super) fn load_identity(
        &mut self,
        pinned_at: Option<SystemTime>,
    ) -> Result<(), SpoolError> {
        if self.identity.is_some() {
            self.lose(End::down("the node's identity was changed"));
        }
        self.pinned_at = pinned_at;
        match Identity::load(&self.config.dir, false) {
            Ok(identity) => {
                tracing::info!(node = %identity.pinned.node, server = %identity.pinned.server, "joined");
                self.backoff = Backoff::new(self.config.retry_max, Instant::now());
                self.way = Way::Idle {
                    until: Instant::now(),
                };
                self.board.cert(Some(identity.cert.until));
                self.board.set(LinkUp::Down, Some("connecting".into()));
                let owner = format!("{} {}", identity.pinned.node, identity.pinned.cluster_id);
                let gone = self.spool.of(&owner)?;
                if gone > 0 {
                    tracing::warn!(gone, "events that were for another cluster are not sent");
                    self.session.events().dropped_up_to(u64::MAX);
                }
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
        Ok(())
    }

    pub(super) fn maybe_dial(&mut self) {
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
                self.way = Way::Dialing {
                    dial: Box::pin(dial),
                    since: Instant::now(),
                };
            }
            Err(error) => self.on_dial_failed(&error),
        }
    }

    /// Without a link: other routes than a moment ago are worth an attempt at once.
    pub(super) fn look_at_network(&mut self) {
        let waits = match &self.way {
            Way::Idle { until } => *until > Instant::now(),
            // One that has just begun may well be on the new way already.
            Way::Dialing { since, .. } => since.elapsed() > DIAL_USUAL,
            Way::Up(_) => false,
        };
        if waits && self.network.changed() {
            tracing::info!("the network changed: trying at once");
            let now = Instant::now();
            self.backoff.network_changed(now);
            self.way = Way::Idle { until: now };
        }
    }

    pub(super) fn on_dial_failed(&mut self, error: &DialError) {
        let why = chain(error);
        self.backoff.failed();
        let mut state = LinkUp::Down;
        if error.is_refusal() {
            self.backoff.refused();
            state = LinkUp::Refused;
        }
        self.renewed_pair_failed();
        self.rest(state, why);
    }

    pub(super) fn on_connected(&mut self, socket: Socket) {
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
    pub(super) fn lose(&mut self, end: End) {
        let line = match std::mem::replace(
            &mut self.way,
            Way::Idle {
                until: Instant::now(),
            },
        ) {
            Way::Up(line) => line,
            // A dial under way belongs to what was before.
            Way::Dialing { .. } | Way::Idle { .. } => return,
        };
        let open = self.opened_at.take().map(|at| at.elapsed());
        tracing::info!(
            why = %end.why, bytes_in = line.bytes_in, bytes_out = line.bytes_out, ?open,
            "the link is down"
        );
        self.session.disconnect();
        self.renewal.disconnected();
        self.network = Network::new();
        match open {
            Some(open) => self.backoff.ended(open, Instant::now()),
            None => {
                self.backoff.failed();
                self.renewed_pair_failed();
            }
        }
        if end.refused {
            self.backoff.refused();
        }
        self.rest(end.state, end.why);
    }

    pub(super) fn rest(&mut self, state: LinkUp, why: String) {
        let now = Instant::now();
        let pause = self.backoff.pause(dice(), now);
        self.way = Way::Idle { until: now + pause };
        if self.board.set(state, Some(why.clone())) {
            tracing::warn!(?pause, "{why}");
        }
    }

    pub(super) fn renewed_pair_failed(&mut self) {
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

    pub(super) fn on_message(&mut self, message: Bytes) {
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

    pub(super) fn on_acts(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Open { .. } => self.on_open(),
                Act::Apply { ticket, put } => self.apply(ticket, &put),
                Act::Remove {
                    ticket,
                    kind,
                    topic,
                    ..
                } => match mirror::check(&kind, &topic) {
                    Ok(topic) => {
                        let clear = Message::clear(&topic);
                        self.write(What::Effect(ticket, topic), Ok(clear));
                    }
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
                Act::Stream(Frame::Open { stream, .. }) => {
                    let why = "streams are not served by this version".to_owned();
                    let code = Code(501);
                    self.session.send_stream(Frame::Close { stream, code, why });
                }
                Act::Stream(_) => {}
            }
        }
    }

    pub(super) fn on_open(&mut self) {
        self.opened_at = Some(Instant::now());
        self.board.set(LinkUp::Up, None);
        self.pinged = Instant::now();
        self.compared = self.pinged;
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

    pub(super) fn on_renewed(&mut self, cert_pem: &str) {
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

    pub(super) fn on_closed(&mut self, code: Code, why: String) {
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

    pub(super) fn send_beat(&mut self, topic: &Topic, body: Bytes) {
        if let Ok(kind) = Kind::new(Kind::BEAT) {
            self.session.sender().beat(&kind, &topic.to_string(), body);
        }
    }

    pub(super) fn pump(&mut self) {
        let now_ms = self.now_ms();
        let Way::Up(line) = &mut self.way else { return };
        match line.pump(&mut self.session, now_ms) {
            Ok(blocked) => self.blocked = blocked,
            Err(error) => self.lose(End::down(format!("a frame cannot be written: {error}"))),
        }
    }
}
