//! The broker as a whole: opens the store, starts spine and router, takes grants, accepts
//! connections, and ends everything in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edgebus_bus::payload::Up;
use edgebus_bus::unit::Grant;
use edgebus_bus::{Name, Topic, table};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::codec::ReasonCode;
use crate::config::Config;
use crate::conn::{self, Door, Stream};
use crate::counters::{Counters, Totals};
use crate::grants::{BROKER, Grants};
use crate::registry::Registry;
use crate::router::{self, Router};
use crate::spine::{Mailboxes, Memory, Spine};
use crate::store::{Inbox, Job, Store};

/// Messages between connections, store and router.
const SPINE: usize = 512;
/// How long connections may take for their last words.
const GOODBYE: Duration = Duration::from_secs(5);
/// After an accept that failed, most likely for want of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Silence on a TCP connection after which the kernel asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// Components whose inboxes exist from first boot; the client id is `{name}.inbox`.
const INBOXES: [&str; 2] = ["link", "devicetwin"];

/// The sockets that a broker serves; the caller owns their paths and ports.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Peers with root's uid or ours are operators.
    pub admin: Option<UnixListener>,
    /// Units: a token is mandatory.
    pub bus: Option<UnixListener>,
    /// Workloads: role `app` without a token.
    pub app: Option<UnixListener>,
    /// Loopback.
    pub tcp: Option<TcpListener>,
}

/// A look into a running broker, for tests and measurements.
#[derive(Clone)]
pub struct Probe {
    broker: Arc<Broker>,
}

impl Probe {
    /// Makes the router's thread panic in the middle of what is routed.
    pub async fn panic_router(&self) {
        if let Err(error) = self.broker.router.panic_for_test().await {
            tracing::warn!(%error, "the router was not there to panic");
        }
    }

    /// What the broker has done.
    pub fn totals(&self) -> Totals {
        self.broker.counters.totals()
    }

    /// What the router has done.
    pub fn router(&self) -> router::Stats {
        self.broker.router.stats()
    }
}

/// Runs a broker until `stop`, or until `grants` ends, which means that the parent is gone.
///
/// Connections are accepted once [`Grant::Ready`] has come.
///
/// # Errors
/// If the store cannot be opened or turns out to be corrupt while running.
pub async fn run(
    config: Config,
    listeners: Listeners,
    grants: mpsc::Receiver<Grant>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    run_with_probe(config, listeners, grants, stop, None).await
}

/// The same, with a look inside.
///
/// # Errors
/// As [`run`].
pub async fn run_with_probe(
    config: Config,
    listeners: Listeners,
    grants: mpsc::Receiver<Grant>,
    stop: CancellationToken,
    probe: Option<oneshot::Sender<Probe>>,
) -> anyhow::Result<()> {
    let counters = Arc::new(Counters::default());
    let (spine, routed) = mpsc::channel(SPINE);
    let fatal = CancellationToken::new();
    let store = Store::open(
        &config,
        &inboxes(),
        spine.clone(),
        counters.clone(),
        fatal.clone(),
    )
    .context("opening the bus store")?;
    let memory = Arc::new(Memory::default());
    let mailboxes = Arc::new(Mailboxes::default());
    let router = Router::start(router::Config::default());
    let spine_task = Spine {
        router: router.clone(),
        memory: memory.clone(),
        mailboxes: mailboxes.clone(),
        counters: counters.clone(),
    };
    let spine_task = tokio::spawn(spine_task.run(routed));
    let inner = stop.child_token();
    let broker = Arc::new(Broker {
        config,
        store,
        router,
        spine,
        memory,
        mailboxes,
        counters,
        grants: Grants::default(),
        registry: Arc::new(Registry::default()),
        stop: inner.clone(),
        boot: random_id()?,
    });
    if let Some(probe) = probe {
        let broker = broker.clone();
        // Who asked may have changed its mind.
        drop(probe.send(Probe { broker }));
    }
    let tasks = TaskTracker::new();
    let served = serve(&broker, listeners, grants, &tasks);
    let result = tokio::select! {
        () = served => Ok(()),
        () = inner.cancelled() => Ok(()),
        () = fatal.cancelled() => Err(anyhow::anyhow!("the bus store is corrupt")),
    };
    tracing::info!("the broker stops");
    inner.cancel();
    tasks.close();
    if tokio::time::timeout(GOODBYE, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections did not end in time");
    }
    broker.store.stop().await;
    spine_task.abort();
    result
}

fn random_id() -> anyhow::Result<String> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random boot id: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn inboxes() -> Vec<Inbox> {
    let inbox = |name: &&str| Inbox {
        key: format!("{name}/{name}.inbox").into(),
        filters: table::inbox_filters(name)
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    INBOXES.iter().map(inbox).collect()
}

/// Takes grants for as long as there are any; begins to accept when they say so.
async fn serve(
    broker: &Arc<Broker>,
    listeners: Listeners,
    mut grants: mpsc::Receiver<Grant>,
    tasks: &TaskTracker,
) {
    let mut listeners = Some(listeners);
    while let Some(grant) = grants.recv().await {
        match grant {
            Grant::Allow { identity, token } => {
                let name = identity.name.clone();
                if !broker.grants.allow(identity, &token) {
                    tracing::error!(name, "a token with this name is not accepted");
                }
            }
            Grant::Forget { name } => {
                broker.grants.forget(&name);
                broker
                    .registry
                    .kick(&name, ReasonCode::AdministrativeAction);
                let (broker, name) = (broker.clone(), name.clone());
                tasks.spawn(async move { forget(&broker, &name).await });
            }
            Grant::Ready => {
                if let Some(listeners) = listeners.take() {
                    announce(broker).await;
                    listen(broker, listeners, tasks);
                }
            }
        }
    }
    tracing::info!("the parent has closed the grants: it is gone");
}

/// Ends what a name had: connections first, because their wills belong to it too.
async fn forget(broker: &Arc<Broker>, name: &str) {
    let gone = tokio::time::timeout(GOODBYE, broker.registry.gone(name));
    if gone.await.is_err() {
        tracing::warn!(name, "a forgotten name is still connected");
    }
    broker.clear_state_of(name).await;
    let name = name.into();
    broker.store.send(Job::Forget { name }).await;
}

/// Says who and how the broker is, retained.
async fn announce(broker: &Arc<Broker>) {
    broker.say_health(Up::Up, None).await;
    let topic = Topic::Store {
        c: Name::new(BROKER).expect("the broker's name is a valid name"),
    };
    let said = serde_json::json!({ "store_id": &**broker.store.id() });
    broker
        .say(&topic, said.to_string().into_bytes(), true)
        .await;
    let broker = broker.clone();
    tokio::spawn(async move {
        let mut state = broker.store.state();
        loop {
            let changed = tokio::select! {
                changed = state.changed() => changed,
                () = broker.stop.cancelled() => return,
            };
            if changed.is_err() {
                return;
            }
            let why = state.borrow_and_update().clone();
            let up = if why.is_some() { Up::Degraded } else { Up::Up };
            broker.say_health(up, why).await;
        }
    });
}

fn listen(broker: &Arc<Broker>, listeners: Listeners, tasks: &TaskTracker) {
    let unknown = Arc::new(Semaphore::new(broker.config.max_unknown));
    let sockets = [
        listeners.admin.map(Socket::Admin),
        listeners.bus.map(Socket::Bus),
        listeners.app.map(Socket::App),
        listeners.tcp.map(Socket::Tcp),
    ];
    for socket in sockets.into_iter().flatten() {
        let accepting = accept(broker.clone(), socket, unknown.clone(), tasks.clone());
        tasks.spawn(accepting);
    }
}

enum Socket {
    Admin(UnixListener),
    Bus(UnixListener),
    App(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Door)> {
        let (listener, door): (_, fn(bool) -> Door) = match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                notice_death(&stream)?;
                let (reader, writer) = stream.into_split();
                return Ok(((Box::new(reader), Box::new(writer)), Door::Tcp(peer)));
            }
            Self::Admin(l) => (l, |trusted| Door::Admin { trusted }),
            Self::Bus(l) => (l, |_| Door::Bus),
            Self::App(l) => (l, |_| Door::App),
        };
        let (stream, _) = listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        let trusted = uid == 0 || uid == rustix::process::getuid().as_raw();
        let (reader, writer) = stream.into_split();
        Ok(((Box::new(reader), Box::new(writer)), door(trusted)))
    }
}

/// Lets the kernel find out that a silent peer is gone, where the client asked for no keep-alive.
fn notice_death(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AFTER / 4)?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}

async fn accept(broker: Arc<Broker>, socket: Socket, unknown: Arc<Semaphore>, tasks: TaskTracker) {
    loop {
        let next = async {
            // Taken before accepting, so that a flood waits in the kernel's queue.
            let permit = unknown.clone().acquire_owned().await;
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = broker.stop.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, door)) => {
                broker.counters.accepted.up();
                let clients = broker.counters.connected.get();
                if clients >= broker.config.max_connections as u64 {
                    tracing::warn!(%door, clients, "too many clients: a connection is turned away");
                    broker.counters.turned_away.up();
                    continue;
                }
                tasks.spawn(conn::serve(broker.clone(), stream, door, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}
