//! A cloud for the tests: the endpoint of cloud-bridge over real TLS, with the same session behind it and a
//! plain map in place of Kubernetes.

#![allow(dead_code, clippy::unwrap_used, clippy::result_large_err)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgebus_linkproto::*;
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair,
};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::sync::CancellationToken;

pub const TOKEN_ID: &str = "abcde";
pub const TOKEN_SECRET: &str = "0123456789abcdef";

#[derive(Default)]
pub struct State {
    pub cluster_id: String,
    pub wanted: BTreeMap<String, BTreeMap<String, Item>>,
    pub complete: BTreeSet<String>,
    /// What came up, newest per topic: uid and body.
    pub states: BTreeMap<String, (String, Bytes)>,
    pub events: Vec<Bytes>,
    pub beats: Vec<Bytes>,
    pub removed: Vec<String>,
    /// Frames sent down that carry content.
    pub puts: u64,
    pub opened: u64,
    /// Connections that stand.
    pub live: u64,
    pub hellos: Vec<Hello>,
    /// Events are refused for now.
    pub busy: bool,
    /// Answer to the upgrade instead of a link.
    pub forbid: Option<String>,
    pub cert_life: Option<Duration>,
    /// Sign for this name instead of the one asked for.
    pub wrong_name: Option<String>,
    pub renewals: u64,
    pub serials: BTreeSet<Vec<u8>>,
}

pub struct Cloud {
    pub state: Arc<Mutex<State>>,
    pub ca_pem: String,
    pub ca_hash: Hash,
    pub port: u16,
    changed: watch::Sender<u64>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    tls: Arc<ServerConfig>,
    serving: CancellationToken,
}

fn valid(params: &mut CertificateParams, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = jiff::Timestamp::now().as_second() as u64;
    params.not_before = epoch + Duration::from_secs(now - 1);
    params.not_after = epoch + Duration::from_secs(now) + life;
}

impl Cloud {
    pub async fn start(cluster_id: &str) -> Cloud {
        Cloud::start_at(cluster_id, 0).await
    }

    /// A cloud with a CA of its own.
    pub async fn start_at(cluster_id: &str, port: u16) -> Cloud {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        let ca = params.self_signed(&key).unwrap();
        let issuer = Arc::new(Issuer::new(params, key));
        let server_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&server_key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![cert.der().clone(), ca.der().clone()], key)
            .unwrap();
        let mut cloud = Cloud {
            state: Arc::default(),
            ca_pem: ca.pem(),
            ca_hash: Hash::of_bytes(ca.der()),
            port,
            changed: watch::channel(0).0,
            issuer,
            tls: Arc::new(tls),
            serving: CancellationToken::new(),
        };
        cloud.state().cluster_id = cluster_id.to_owned();
        cloud.serve().await;
        cloud
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn token(&self) -> JoinToken {
        JoinToken::new(self.ca_hash, TOKEN_ID, TOKEN_SECRET).unwrap()
    }

    pub fn server(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Changes what is wanted; links are told.
    pub fn change(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state());
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn want(&self, kind: &str, topic: &str, uid: &str, body: &str) {
        let hash = Hash::of_bytes(body.as_bytes());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let item = Item {
            uid: uid.into(),
            hash,
            body,
        };
        self.change(|state| {
            state.complete.insert(kind.into());
            state
                .wanted
                .entry(kind.into())
                .or_default()
                .insert(topic.into(), item);
        });
    }

    pub fn unwant(&self, kind: &str, topic: &str) {
        self.change(|state| drop(state.wanted.get_mut(kind).unwrap().remove(topic)));
    }

    /// Ends every connection and takes no new one.
    pub async fn cut(&self) {
        self.serving.cancel();
        self.deserted().await;
    }

    /// Waits until no connection stands.
    pub async fn deserted(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.state().live > 0 {
            assert!(Instant::now() < deadline, "a connection stays");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Serves, on the port it had before, if any.
    pub async fn serve(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(e) if Instant::now() > deadline => panic!("{e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.port = listener.local_addr().unwrap().port();
        self.serving = CancellationToken::new();
        let (stop, acceptor) = (self.serving.clone(), TlsAcceptor::from(self.tls.clone()));
        let one = One {
            state: self.state.clone(),
            changed: self.changed.subscribe(),
            issuer: self.issuer.clone(),
            ca_pem: self.ca_pem.clone(),
        };
        tokio::spawn(async move {
            while let Some(Ok((tcp, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (acceptor, one, stop) = (acceptor.clone(), one.clone(), stop.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let state = one.state.clone();
                    state.lock().unwrap().live += 1;
                    stop.run_until_cancelled(one.connection(stream)).await;
                    state.lock().unwrap().live -= 1;
                });
            }
        });
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.serving.cancel();
    }
}

#[derive(Clone)]
struct One {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    ca_pem: String,
}

impl One {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn connection(self, stream: TlsStream<TcpStream>) {
        let peer = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|certs| certs[0].clone());
        match peer {
            None => self.enrol(stream).await,
            Some(cert) => self.link(stream, cert.into_owned()).await,
        }
    }

    fn sign(&self, csr_pem: &str, node: &str) -> Result<String, rcgen::Error> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = CertificateParams::default();
        let name = self.state().wrong_name.clone().unwrap_or(node.into());
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("system:node:{name}"));
        valid(
            &mut params,
            self.state().cert_life.unwrap_or(Duration::from_secs(3600)),
        );
        csr.params = params;
        Ok(csr.signed_by(&self.issuer)?.pem())
    }

    async fn enrol(self, mut stream: TlsStream<TcpStream>) {
        let mut read = Vec::new();
        let body = loop {
            let mut chunk = [0; 4096];
            let n = stream.read(&mut chunk).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            read.extend_from_slice(&chunk[..n]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("Content-Length: "))
                .unwrap();
            if body.len() >= length.parse::<usize>().unwrap() {
                assert!(head.starts_with("POST /v1/enrol HTTP/1.1"), "{head}");
                break body.to_owned();
            }
        };
        let ask: EnrolRequest = serde_json::from_str(&body).unwrap();
        let (status, answer) = if ask.token_id == TOKEN_ID && ask.token_secret == TOKEN_SECRET {
            let reply = EnrolReply {
                cert_pem: self.sign(&ask.csr_pem, &ask.node).unwrap(),
                ca_pem: self.ca_pem.clone(),
                cluster_id: self.state().cluster_id.clone(),
                node: ask.node,
            };
            ("200 OK", serde_json::to_string(&reply).unwrap())
        } else {
            let refusal = EnrolError {
                error: "bad-token".into(),
                why: "no such token".into(),
            };
            ("403 Forbidden", serde_json::to_string(&refusal).unwrap())
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
    }

    async fn link(mut self, stream: TlsStream<TcpStream>, cert: CertificateDer<'static>) {
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert).unwrap();
        let cn = parsed
            .subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str()
            .unwrap();
        let node = cn.strip_prefix("system:node:").unwrap().to_owned();
        self.state().serials.insert(parsed.raw_serial().to_vec());
        let forbid = self.state().forbid.clone();
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), LINK_PATH);
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            if let Some(why) = forbid {
                let body = serde_json::json!({"error": "revoked", "why": why}).to_string();
                let mut refusal = ErrorResponse::new(Some(body));
                *refusal.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::FORBIDDEN;
                return Err(refusal);
            }
            let protocol = SUBPROTOCOL.parse().unwrap();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, answer).await else {
            return;
        };
        let me = Ident {
            node: node.clone(),
            store_id: String::new(),
            cluster_id: self.state().cluster_id.clone(),
            version: "test".into(),
        };
        let mut session = Session::new(me, Budgets::default(), Timing::default());
        let started = Instant::now();
        self.offer(&mut session);
        session.connect(0);
        let mut closing = false;
        loop {
            let now = started.elapsed().as_millis() as u64;
            let mut message = BytesMut::new();
            while let Some(frame) = session.next_frame(now) {
                if matches!(
                    frame,
                    Frame::Put(_) | Frame::Del { .. } | Frame::Manifest { .. }
                ) {
                    self.state().puts += 1;
                }
                encode(&frame, &mut message).unwrap();
            }
            if !message.is_empty()
                && socket
                    .send(Message::Binary(message.freeze()))
                    .await
                    .is_err()
            {
                return;
            }
            if closing {
                socket.close(None).await.ok();
                return;
            }
            let wake = session.next_wake().unwrap_or(now + 1000).max(now + 1);
            let mut acts = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => decode(bytes)
                        .unwrap()
                        .into_iter()
                        .flat_map(|frame| session.on_frame(frame, now))
                        .collect(),
                    Some(Ok(_)) => Vec::new(),
                    _ => return,
                },
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.offer(&mut session);
                    Vec::new()
                }
                () = tokio::time::sleep_until(started + Duration::from_millis(wake)) => {
                    session.on_time(wake)
                }
            };
            while !acts.is_empty() {
                for act in std::mem::take(&mut acts) {
                    closing |= matches!(act, Act::Closed { .. });
                    acts.extend(self.act(&mut session, act, &node));
                }
            }
        }
    }

    fn offer(&self, session: &mut Session) {
        let state = self.state();
        for kind in &state.complete {
            let items = state.wanted.get(kind).cloned().unwrap_or_default();
            assert!(
                session
                    .sender()
                    .replace(&Kind::new(kind).unwrap(), items)
                    .is_empty()
            );
        }
    }

    fn act(&self, session: &mut Session, act: Act, node: &str) -> Vec<Act> {
        match act {
            Act::Open { peer } => {
                let mut state = self.state();
                state.opened += 1;
                state.hellos.push(peer);
                Vec::new()
            }
            Act::Apply { ticket, put } => {
                let mut state = self.state();
                if put.kind.as_str() == Kind::EVENT {
                    if state.busy {
                        return session.failed(ticket, Code::BUSY, "busy", false);
                    }
                    state.events.push(put.body);
                } else {
                    state.states.insert(put.topic, (put.uid, put.body));
                }
                drop(state);
                session.done(ticket)
            }
            Act::Remove { ticket, topic, .. } => {
                let mut state = self.state();
                state.states.remove(topic.as_ref());
                state.removed.push(topic.to_string());
                drop(state);
                session.done(ticket)
            }
            Act::Beat { put } => {
                self.state().beats.push(put.body);
                Vec::new()
            }
            Act::Renew { seq, csr_pem } => {
                self.state().renewals += 1;
                let cert = self.sign(&csr_pem, node).unwrap();
                session.renewed(seq, cert, self.ca_pem.clone());
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}
