//! A broker in this process on real sockets, and a client that speaks raw packets, so that tests
//! see each flag and each packet id.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgebus_bus::unit::Grant;
use edgebus_bus::{Identity, Role};
use edgebus_eventbus::codec::{
    self, Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, Subscription, Unsubscribe, Version, Will,
};
use edgebus_eventbus::{Config, Listeners, Probe, run_with_probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test listens for what must not happen.
pub const QUIET: Duration = Duration::from_millis(300);

pub const E: &str = edgebus_bus::ROOT;

/// A running broker. All tokens are `{name}-token`.
pub struct Bus {
    pub tcp: SocketAddr,
    pub probe: Probe,
    grants: mpsc::Sender<Grant>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bus {
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {}).await
    }

    pub async fn start_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(dir);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let socket = |name: &str| {
            let path = dir.join(name);
            std::fs::remove_file(&path).ok();
            Some(UnixListener::bind(path).unwrap())
        };
        let listeners = Listeners {
            admin: socket("admin.sock"),
            bus: socket("bus.sock"),
            app: socket("app.sock"),
            tcp: Some(listener),
        };
        let (grants, inbox) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let (probe, probed) = oneshot::channel();
        let task = tokio::spawn(run_with_probe(
            config,
            listeners,
            inbox,
            stop.clone(),
            Some(probe),
        ));
        for (role, name) in [
            (Role::Link, "link"),
            (Role::Edged, "edged"),
            (Role::DeviceTwin, "devicetwin"),
            (Role::Mapper, "modbus"),
            (Role::Mapper, "opcua"),
            (Role::App, "shop"),
            (Role::Viewer, "viewer"),
        ] {
            let grant = Grant::Allow {
                identity: Identity::new(role, name),
                token: format!("{name}-token"),
            };
            grants.send(grant).await.unwrap();
        }
        grants.send(Grant::Ready).await.unwrap();
        Self {
            tcp,
            probe: probed.await.expect("the broker has started"),
            grants,
            stop,
            task,
        }
    }

    pub async fn grant(&self, grant: Grant) {
        self.grants.send(grant).await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends the broker as its parent's death would.
    pub async fn orphan(self) -> anyhow::Result<()> {
        drop(self.grants);
        self.task.await.unwrap()
    }

    /// A client with a token, connected over TCP with a clean session.
    pub async fn client(&self, version: Version, name: &str) -> Client {
        Login::new(version, name).join(self).await
    }
}

/// What a client says at CONNECT.
pub struct Login(pub Connect);

impl Login {
    pub fn new(version: Version, name: &str) -> Self {
        let mut login = Self::nobody(version);
        login.0.client_id = name.to_owned();
        login.0.username = Some(name.to_owned());
        login.0.password = Some(format!("{name}-token").into());
        login
    }

    pub fn nobody(version: Version) -> Self {
        Self(Connect {
            version,
            clean_start: true,
            keep_alive: 0,
            properties: Properties::NONE,
            client_id: String::new(),
            will: None,
            username: None,
            password: None,
        })
    }

    pub fn id(mut self, id: &str) -> Self {
        self.0.client_id = id.to_owned();
        self
    }

    pub fn token(mut self, token: &str) -> Self {
        self.0.password = Some(token.to_owned().into());
        self
    }

    /// A session that outlives the connection.
    pub fn lasting(mut self) -> Self {
        self.0.clean_start = false;
        if self.0.version == Version::V5 {
            self.0.properties.session_expiry_interval = Some(3600);
        }
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.0.keep_alive = seconds;
        self
    }

    pub fn will(mut self, topic: &str, payload: &str, retain: bool) -> Self {
        self.0.will = Some(Will {
            qos: QoS::AtLeastOnce,
            retain,
            properties: Properties::NONE,
            topic: topic.to_owned(),
            payload: payload.to_owned().into(),
        });
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(&mut self.0.properties);
        self
    }

    pub async fn ask(self, at: impl Into<Place>) -> (Client, ConnAck) {
        let mut client = Client::open(at.into(), self.0.version).await;
        client.send(Packet::Connect(Box::new(self.0))).await;
        match client.recv().await {
            Packet::ConnAck(ack) => (client, ack),
            other => panic!("CONNACK expected, got {other:?}"),
        }
    }

    /// Connects and is admitted.
    pub async fn join(self, at: impl Into<Place>) -> Client {
        let (client, ack) = self.ask(at).await;
        assert_eq!(ack.reason, ReasonCode::Success, "{ack:?}");
        client
    }
}

/// Where to connect.
pub enum Place {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

impl From<&Bus> for Place {
    fn from(bus: &Bus) -> Self {
        Self::Tcp(bus.tcp)
    }
}

impl From<SocketAddr> for Place {
    fn from(at: SocketAddr) -> Self {
        Self::Tcp(at)
    }
}

impl From<std::path::PathBuf> for Place {
    fn from(path: std::path::PathBuf) -> Self {
        Self::Unix(path)
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client of raw packets.
pub struct Client {
    socket: Socket,
    buffer: BytesMut,
    pub version: Version,
    next_id: u16,
}

impl Client {
    pub async fn open(at: Place, version: Version) -> Self {
        let socket = match at {
            Place::Tcp(at) => {
                let stream = TcpStream::connect(at).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Socket::Tcp(stream)
            }
            Place::Unix(path) => Socket::Unix(UnixStream::connect(path).await.unwrap()),
        };
        Self {
            socket,
            buffer: BytesMut::new(),
            version,
            next_id: 0,
        }
    }

    pub async fn send(&mut self, packet: Packet) {
        self.try_send(packet).await.unwrap();
    }

    pub async fn try_send(&mut self, packet: Packet) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        codec::encode(&packet, self.version, &mut out).unwrap();
        self.send_bytes(&out).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(s) => s.write_all(bytes).await,
            Socket::Unix(s) => s.write_all(bytes).await,
        }
    }

    /// The next packet; `None` when the connection has ended.
    pub async fn try_recv(&mut self) -> Option<Packet> {
        loop {
            let version = Some(self.version);
            if let Some(packet) = codec::decode(&mut self.buffer, version, usize::MAX).unwrap() {
                return Some(packet);
            }
            let read = match &mut self.socket {
                Socket::Tcp(s) => s.read_buf(&mut self.buffer).await,
                Socket::Unix(s) => s.read_buf(&mut self.buffer).await,
            };
            match read {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn recv(&mut self) -> Packet {
        let next = tokio::time::timeout(PATIENCE, self.try_recv()).await;
        next.expect("a packet in time")
            .expect("a packet, not the end")
    }

    /// Asserts that the broker ends the connection; returns what MQTT 5 was told.
    pub async fn ended(&mut self) -> Option<Disconnect> {
        let end = async {
            let mut said = None;
            while let Some(packet) = self.try_recv().await {
                if let Packet::Disconnect(d) = packet {
                    said = Some(d);
                }
            }
            said
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the end in time")
    }

    /// Asserts that nothing comes for a while.
    pub async fn quiet(&mut self) {
        if let Ok(packet) = tokio::time::timeout(QUIET, self.try_recv()).await {
            panic!("nothing expected, got {packet:?}");
        }
    }

    pub fn id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        self.subscribe_with(plain(filter, qos), 0).await.reasons[0]
    }

    pub async fn subscribe_with(&mut self, subscription: Subscription, id: u32) -> SubAck {
        let packet_id = self.id();
        let mut properties = Properties::NONE;
        if id != 0 {
            properties.subscription_ids = vec![id];
        }
        let filters = vec![subscription];
        self.send(Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }))
        .await;
        match self.recv().await {
            Packet::SubAck(ack) if ack.packet_id == packet_id => ack,
            other => panic!("SUBACK expected, got {other:?}"),
        }
    }

    pub async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.id();
        self.send(Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties: Properties::NONE,
            filters: vec![filter.to_owned()],
        }))
        .await;
        match self.recv().await {
            Packet::UnsubAck(ack) if ack.packet_id == packet_id => {}
            other => panic!("UNSUBACK expected, got {other:?}"),
        }
    }

    /// Sends a PUBLISH and does not wait.
    pub async fn push(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> u16 {
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { self.id() };
        self.send(Packet::Publish(Publish {
            qos,
            retain,
            topic: topic.to_owned(),
            packet_id,
            payload: Bytes::copy_from_slice(payload),
            ..Publish::default()
        }))
        .await;
        packet_id
    }

    /// Publishes with QoS 1 and returns what the PUBACK says. Nothing else may come meanwhile.
    pub async fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> Ack {
        let id = self
            .push(topic, payload.as_bytes(), QoS::AtLeastOnce, retain)
            .await;
        match self.recv().await {
            Packet::PubAck(ack) if ack.packet_id == id => ack,
            other => panic!("PUBACK expected, got {other:?}"),
        }
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Publish {
        let message = self.unacknowledged().await;
        self.acknowledge(&message).await;
        message
    }

    /// The next message.
    pub async fn unacknowledged(&mut self) -> Publish {
        match self.recv().await {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH expected, got {other:?}"),
        }
    }

    pub async fn acknowledge(&mut self, message: &Publish) {
        if message.qos != QoS::AtMostOnce {
            self.send(Packet::PubAck(Ack::ok(message.packet_id))).await;
        }
    }

    /// Leaves with DISCONNECT.
    pub async fn leave(mut self) {
        self.send(Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::NONE,
        }))
        .await;
        self.ended().await;
    }
}

pub fn plain(filter: &str, qos: QoS) -> Subscription {
    Subscription {
        filter: filter.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
