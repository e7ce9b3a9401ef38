//! A control plane, a bridge, and an edge that keeps its mirror in a map: real TLS and WebSocket, real API.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edgebus_api::seal::SealingKey;
use edgebus_bridge::{Config, TokenSpec};
use edgebus_linkproto::{
    Act, Budgets, Code, ENROL_PATH, EnrolReply, EnrolRequest, Hash, Ident, Item, JoinToken, Kind,
    LINK_PATH, SUBPROTOCOL, Sequenced, Session, Timing, decode, encode,
};
use futures_util::{SinkExt as _, StreamExt as _};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, config::KubeConfigOptions, config::Kubeconfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, client::IntoClientRequest as _};
use tokio_util::sync::CancellationToken;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub async fn eventually<T, F>(what: &str, mut test: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        match test().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < until, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub struct Part {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub struct Cloud {
    pub dir: tempfile::TempDir,
    pub api_address: SocketAddr,
    pub address: SocketAddr,
    pub client: Client,
    pub api: Option<Part>,
    pub bridge: Option<Part>,
    grace: Duration,
}

async fn listen(address: SocketAddr) -> TcpListener {
    eventually("bind", || async move {
        TcpListener::bind(address).await.map_err(|e| e.to_string())
    })
    .await
}

impl Cloud {
    pub async fn start() -> Cloud {
        Cloud::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Cloud {
        Cloud::start_full(Duration::from_secs(40), change).await
    }

    /// `grace`: after which a silent node is not Ready.
    pub async fn start_full(grace: Duration, change: impl FnOnce(&mut Config)) -> Cloud {
        let dir = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (api_listener, listener) = (listen(any).await, listen(any).await);
        let (api_address, address) = (
            api_listener.local_addr().unwrap(),
            listener.local_addr().unwrap(),
        );
        let api = serve_api(&dir.path().join("api"), api_listener, grace).await;
        let kubeconfig = dir.path().join("api/kubeconfig");
        let client = client(&kubeconfig).await;
        let mut cloud = Cloud {
            dir,
            api_address,
            address,
            client,
            api: Some(api),
            bridge: None,
            grace,
        };
        cloud.bridge(listener, change);
        cloud
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("api/kubeconfig")
    }

    pub fn bridge(&mut self, listener: TcpListener, change: impl FnOnce(&mut Config)) {
        let mut config = Config {
            kubeconfig: Some(self.kubeconfig()),
            ..Config::default()
        };
        change(&mut config);
        let stop = CancellationToken::new();
        let task = tokio::spawn(edgebus_bridge::run(config, listener, stop.clone()));
        self.bridge = Some(Part { stop, task });
    }

    pub async fn restart_bridge(&mut self) {
        if let Some(bridge) = self.bridge.take() {
            bridge.stop().await;
        }
        let listener = listen(self.address).await;
        self.bridge(listener, |_| {});
    }

    /// The control plane is gone until [`Cloud::resume_api`].
    pub async fn stop_api(&mut self) {
        if let Some(api) = self.api.take() {
            api.stop().await;
        }
    }

    pub async fn resume_api(&mut self) {
        let listener = listen(self.api_address).await;
        self.api = Some(serve_api(&self.dir.path().join("api"), listener, self.grace).await);
    }

    /// A new control plane at the same address that knows nothing.
    pub async fn empty_api(&mut self) {
        if let Some(api) = self.api.take() {
            api.stop().await;
        }
        let data = self.dir.path().join("api");
        for entry in std::fs::read_dir(&data).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() && entry.file_name() != "kubeconfig" {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let listener = listen(self.api_address).await;
        self.api = Some(serve_api(&data, listener, self.grace).await);
        self.client = client(&self.kubeconfig()).await;
    }

    pub async fn stop(mut self) {
        if let Some(bridge) = self.bridge.take() {
            bridge.stop().await;
        }
        if let Some(api) = self.api.take() {
            api.stop().await;
        }
    }

    pub async fn token(&self, node: Option<&str>) -> JoinToken {
        let spec = TokenSpec {
            node: node.map(|n| n.parse().unwrap()),
            ..TokenSpec::default()
        };
        let text = edgebus_bridge::token_create(Some(self.kubeconfig()), spec)
            .await
            .unwrap();
        text.parse().unwrap()
    }

    pub fn api_of(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        ns: Option<&str>,
    ) -> Api<DynamicObject> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match ns {
            Some(ns) => Api::namespaced_with(self.client.clone(), ns, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    pub fn devices(&self) -> Api<DynamicObject> {
        self.api_of(
            "devices.kubeedge.io",
            "v1beta1",
            "Device",
            "devices",
            Some("default"),
        )
    }

    pub fn models(&self) -> Api<DynamicObject> {
        self.api_of(
            "devices.kubeedge.io",
            "v1beta1",
            "DeviceModel",
            "devicemodels",
            Some("default"),
        )
    }

    pub fn statuses(&self) -> Api<DynamicObject> {
        self.api_of(
            "devices.kubeedge.io",
            "v1beta1",
            "DeviceStatus",
            "devicestatuses",
            Some("default"),
        )
    }

    pub fn core(&self, kind: &str, plural: &str, ns: Option<&str>) -> Api<DynamicObject> {
        self.api_of("", "v1", kind, plural, ns)
    }

    pub async fn create(&self, api: &Api<DynamicObject>, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        eventually("create", || async {
            api.create(&Default::default(), &object)
                .await
                .map_err(|e| e.to_string())
        })
        .await
    }
}

async fn serve_api(dir: &std::path::Path, listener: TcpListener, grace: Duration) -> Part {
    let mut config = edgebus_standalone::Config::new(dir);
    config.node_grace = grace;
    let stop = CancellationToken::new();
    let server = edgebus_standalone::Server::open(config, listener, stop.clone())
        .await
        .unwrap();
    let task = tokio::spawn(server.run());
    Part { stop, task }
}

async fn client(kubeconfig: &std::path::Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// TLS to the bridge; trusts whatever is there when `ca` is None, as a first look does.
async fn tls(
    address: SocketAddr,
    ca: &CertificateDer<'static>,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|e| e.to_string())
}

/// The CA as the cluster keeps it.
pub async fn ca(cloud: &Cloud) -> CertificateDer<'static> {
    let secret = cloud
        .core("Secret", "secrets", Some("edgebus-system"))
        .get("edgebus-ca")
        .await
        .unwrap();
    let text = secret.data["data"]["ca.crt"].as_str().unwrap();
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    CertificateDer::from_pem_slice(&pem).unwrap()
}

pub async fn post(cloud: &Cloud, path: &str, body: &[u8]) -> Result<(u16, Value), String> {
    let mut stream = tls(cloud.address, &ca(cloud).await, None).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Err(e) if answer.is_empty() => Err(e),
            _ => Ok(answer),
        }
    };
    let answer: Vec<u8> = exchange.await.map_err(|e: std::io::Error| e.to_string())?;
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

pub struct Key {
    pub pem: String,
    pub csr: String,
}

pub fn key() -> Key {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    Key {
        pem: key.serialize_pem(),
        csr,
    }
}

/// Asks to enrol: status and answer.
pub async fn ask(
    cloud: &Cloud,
    token: &JoinToken,
    node: &str,
    key: &Key,
    sealing: &SealingKey,
) -> (u16, Value) {
    let ask = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        node: node.to_owned(),
        csr_pem: key.csr.clone(),
        sealing_pub: sealing.public_base64(),
    };
    let body = serde_json::to_vec(&ask).unwrap();
    eventually("enrol", || post(cloud, ENROL_PATH, &body)).await
}

/// One thing on the edge's bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub uid: String,
    pub hash: Hash,
    pub body: Value,
}

/// The edge: link and bus in one.
pub struct Edge {
    pub address: SocketAddr,
    pub ca: CertificateDer<'static>,
    pub cert_pem: String,
    pub key: Key,
    pub sealing: SealingKey,
    pub session: Session,
    pub held: BTreeMap<String, Held>,
    pub synced: BTreeSet<String>,
    pub refused: Vec<(String, Code, String)>,
    pub events_done: Vec<(u64, Option<String>)>,
    pub closed: Option<(Code, String)>,
    pub renewed: Option<String>,
    /// Puts and deletions received on this connection.
    pub applied: usize,
    ws: Option<WebSocketStream<TlsStream<TcpStream>>>,
    started: Instant,
}

impl Edge {
    pub async fn join(cloud: &Cloud, node: &str) -> Edge {
        Edge::join_with(cloud, node, &cloud.token(None).await).await
    }

    /// Another process with the same identity.
    pub fn twin_of(&self) -> Edge {
        let session = Session::new(
            self.session.ident().clone(),
            Budgets::default(),
            Timing::default(),
        );
        let sealing = SealingKey::from_base64(&self.sealing.private_base64()).unwrap();
        let key = Key {
            pem: self.key.pem.clone(),
            csr: self.key.csr.clone(),
        };
        Edge::new(
            self.address,
            self.ca.clone(),
            self.cert_pem.clone(),
            key,
            sealing,
            session,
        )
    }

    pub async fn join_with(cloud: &Cloud, node: &str, token: &JoinToken) -> Edge {
        let (key, sealing) = (key(), SealingKey::generate());
        let (status, answer) = ask(cloud, token, node, &key, &sealing).await;
        assert_eq!(status, 200, "{answer}");
        let reply: EnrolReply = serde_json::from_value(answer).unwrap();
        assert_eq!(reply.node, node);
        let ident = Ident {
            node: node.to_owned(),
            store_id: "store-1".into(),
            cluster_id: reply.cluster_id,
            version: "test".into(),
        };
        let ca = CertificateDer::from_pem_slice(reply.ca_pem.as_bytes()).unwrap();
        assert_eq!(Hash::of_bytes(&ca), token.ca);
        let session = Session::new(ident, Budgets::default(), Timing::default());
        Edge::new(cloud.address, ca, reply.cert_pem, key, sealing, session)
    }

    fn new(
        address: SocketAddr,
        ca: CertificateDer<'static>,
        cert_pem: String,
        key: Key,
        sealing: SealingKey,
        session: Session,
    ) -> Edge {
        Edge {
            address,
            ca,
            cert_pem,
            key,
            sealing,
            session,
            held: BTreeMap::new(),
            synced: BTreeSet::new(),
            refused: Vec::new(),
            events_done: Vec::new(),
            closed: None,
            renewed: None,
            applied: 0,
            ws: None,
            started: Instant::now(),
        }
    }

    /// One try; the error is the HTTP status with its body, or what went wrong before.
    pub async fn dial(&mut self) -> Result<(), (u16, String)> {
        let cert = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.pem.as_bytes()).unwrap();
        let tls = tls(self.address, &self.ca, Some((cert, key)))
            .await
            .map_err(|e| (0, e))?;
        let mut request = format!("wss://localhost{LINK_PATH}")
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (ws, _) = tokio_tungstenite::client_async(request, tls)
            .await
            .map_err(|e| match e {
                WsError::Http(answer) => {
                    let body = answer.body().clone().unwrap_or_default();
                    (
                        answer.status().as_u16(),
                        String::from_utf8_lossy(&body).into_owned(),
                    )
                }
                other => (0, other.to_string()),
            })?;
        self.ws = Some(ws);
        self.applied = 0;
        self.synced.clear();
        self.closed = None;
        self.session.connect(self.now());
        Ok(())
    }

    pub async fn connect(&mut self) {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.dial().await {
            assert!(Instant::now() < until, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.until("the link opens", |edge| edge.session.is_open())
            .await;
    }

    pub fn disconnect(&mut self) {
        self.ws = None;
        self.session.disconnect();
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Apply { ticket, put } => {
                    self.applied += 1;
                    let body = serde_json::from_slice(&put.body).unwrap();
                    self.held.insert(
                        put.topic,
                        Held {
                            uid: put.uid,
                            hash: put.hash,
                            body,
                        },
                    );
                    let more = self.session.done(ticket);
                    self.act(more);
                }
                Act::Remove { ticket, topic, .. } => {
                    self.applied += 1;
                    self.held.remove(topic.as_ref());
                    let more = self.session.done(ticket);
                    self.act(more);
                }
                Act::Synced { kind, .. } => drop(self.synced.insert(kind.to_string())),
                Act::Rejected {
                    topic, code, why, ..
                } => self.refused.push((topic.to_string(), code, why)),
                Act::EventDone { id, refused } => self.events_done.push((id, refused)),
                Act::Renewed { cert_pem, .. } => self.renewed = Some(cert_pem),
                Act::Closed { code, why, .. } => self.closed = Some((code, why)),
                _ => {}
            }
        }
    }

    /// Turns until something is true.
    pub async fn until(&mut self, what: &str, mut test: impl FnMut(&Edge) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !test(self) {
            assert!(
                Instant::now() < until,
                "{what}: closed {:?}, holds {:?}, refused {:?}",
                self.closed,
                self.held.keys(),
                self.refused
            );
            self.turn().await;
        }
    }

    /// Turns while `work` goes on.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.turn() => {}
            }
        }
    }

    async fn turn(&mut self) {
        let mut out = BytesMut::new();
        let now = self.now();
        while let Some(frame) = self.session.next_frame(now) {
            encode(&frame, &mut out).unwrap();
        }
        let Some(ws) = self.ws.as_mut() else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            return;
        };
        if !out.is_empty() {
            // A bridge that has closed already does not hear it.
            drop(ws.send(Message::Binary(out.freeze())).await);
        }
        match tokio::time::timeout(Duration::from_millis(10), ws.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => {
                for frame in decode(bytes).unwrap() {
                    let acts = self.session.on_frame(frame, self.now());
                    self.act(acts);
                }
            }
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => {
                self.ws = None;
                self.closed.get_or_insert((Code::UNAVAILABLE, "cut".into()));
            }
            _ => {}
        }
        let acts = self.session.on_time(self.now());
        self.act(acts);
    }

    pub fn say(&mut self, kind: &str, topic: &str, uid: &str, body: Value) {
        let item = Item {
            uid: uid.to_owned(),
            hash: Hash::of_json(&body),
            body: Bytes::from(body.to_string()),
        };
        self.session
            .sender()
            .set(&Kind::new(kind).unwrap(), topic, item)
            .unwrap();
    }

    pub fn beat(&mut self, n: u64) {
        let body = Bytes::from(serde_json::json!({ "seq": n, "loop_ok_ms": 1 }).to_string());
        let topic = edgebus_bus::Topic::NodeBeat {}.to_string();
        self.session
            .sender()
            .beat(&Kind::new(Kind::BEAT).unwrap(), &topic, body);
    }

    pub fn event(&mut self, id: u64, body: Value) {
        let topic = edgebus_bus::Topic::Event {
            c: "devicetwin".parse().unwrap(),
        }
        .to_string();
        let event = Sequenced {
            id,
            topic,
            uid: String::new(),
            body: Bytes::from(body.to_string()),
        };
        self.session.events().push(event).unwrap();
    }

    pub fn renew(&mut self, key: &Key) -> bool {
        self.session.renew(key.csr.clone())
    }

    pub fn get(&self, end: &str) -> Option<&Held> {
        self.held
            .iter()
            .find(|(topic, _)| topic.ends_with(end))
            .map(|(_, held)| held)
    }
}
