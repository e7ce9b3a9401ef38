//! What survives: retained messages by topic, persistent sessions and their queues, in one SQLite
//! file with one thread that writes it.
//!
//! ```text
//!  connections ──► Job ──► writer thread: one transaction for all that wait ──► COMMIT
//!                                             │ in commit order
//!                                             ▼
//!                                           spine: route, then acknowledge
//! ```
//!
//! Reads go through the same thread, after what was asked before them is committed.

mod apply;
mod open;
mod queue;
mod retained;
mod session;
mod standing;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use edgebus_bus::Durability;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::codec::{QoS, ReasonCode};
use crate::config::Config;
use crate::counters::Counters;
use crate::message::{Message, Outgoing};
use crate::spine::Routed;
pub use open::OpenError;
pub(crate) use retained::literal_prefix;
pub use session::{Inbox, Opened, name_of};
pub use standing::{Hit, Standing, Wish};

/// Jobs that wait for the writer; askers wait beyond it.
const JOBS: usize = 1024;
/// What has expired is looked for at least this often.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a publish was not taken. All of them may pass: the same publish can succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the inbox of {0} is full: its reader is away or slow")]
    InboxFull(Arc<str>),
    #[error("retained messages under app/ have reached {0} bytes: clear some first")]
    AppQuota(usize),
    #[error("{0} holds {1} bytes of retained messages in memory, which is its share")]
    MemoryQuota(Arc<str>, usize),
    #[error("{0} has {1} persistent sessions already: end some, or connect with a clean one")]
    Sessions(Arc<str>, usize),
    #[error("the store cannot be written: {0}")]
    Disk(String),
    #[error("the broker is stopping")]
    Stopped,
}

impl Refused {
    /// What an MQTT 5 PUBACK says.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::Stopped => ReasonCode::UnspecifiedError,
            _ => ReasonCode::QuotaExceeded,
        }
    }

    /// What a CONNACK says when the session cannot be opened.
    pub fn connect_reason(&self) -> ReasonCode {
        match self {
            Self::Sessions(..) => ReasonCode::QuotaExceeded,
            _ => ReasonCode::ServerUnavailable,
        }
    }
}

/// Where the retained value of a message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is not retained.
    Nowhere,
    Memory,
    Disk(Durability),
}

/// Answers a publisher once its message is committed and routed.
pub type Reply = oneshot::Sender<Result<(), Refused>>;

/// One page of retained messages.
#[derive(Debug, Default)]
pub struct Page {
    pub messages: Vec<Arc<Message>>,
    /// Topic after which the next page begins; `None` = that was all.
    pub next: Option<Arc<str>>,
}

pub(crate) enum Job {
    Publish {
        message: Message,
        place: Place,
        reply: Option<Reply>,
    },
    Retained {
        filter: Arc<str>,
        after: Option<Arc<str>>,
        reply: oneshot::Sender<Result<Page, Refused>>,
    },
    Queued {
        session: u64,
        after: u64,
        reply: oneshot::Sender<Result<Vec<Outgoing>, Refused>>,
    },
    Ack {
        session: u64,
        q: u64,
    },
    Subscribe {
        session: u64,
        wish: Wish,
        replay: bool,
        reply: oneshot::Sender<Result<bool, Refused>>,
    },
    Unsubscribe {
        session: u64,
        filter: Arc<str>,
        reply: oneshot::Sender<Result<bool, Refused>>,
    },
    /// The replay of this subscription has been taken whole.
    Replayed {
        session: u64,
        filter: Arc<str>,
    },
    Open {
        key: Arc<str>,
        /// Drop what was there.
        clean: bool,
        /// Keep it beyond the connection.
        keep: bool,
        reply: oneshot::Sender<Result<Opened, Refused>>,
    },
    Leave {
        session: u64,
        /// Seconds to keep it; 0 = drop it now.
        expiry_s: u32,
    },
    /// Drop all sessions of this name.
    Forget {
        name: Arc<str>,
    },
    /// Make lazy commits durable and sweep what has expired.
    Flush,
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// Handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    committed: Arc<AtomicU64>,
    standing: Arc<RwLock<Standing>>,
    id: Arc<str>,
    state: watch::Receiver<Option<String>>,
}

impl Store {
    /// Opens the file and starts the writer thread. `fatal` is cancelled when the file turns out
    /// to be corrupt while running: the next start moves it aside.
    pub fn open(
        config: &Config,
        inboxes: &[Inbox],
        spine: mpsc::Sender<Routed>,
        counters: Arc<Counters>,
        fatal: CancellationToken,
    ) -> Result<Self, OpenError> {
        let file = open::open(config)?;
        let (jobs, inbox) = mpsc::channel(JOBS);
        let standing = Arc::new(RwLock::default());
        let committed = Arc::new(AtomicU64::new(file.last_commit));
        let id: Arc<str> = file.store_id.as_str().into();
        let lazy = Arc::new(Notify::new());
        let (failing, state) = watch::channel(None);
        let mut writer = writer::Writer {
            db: file.db,
            sessions: Default::default(),
            standing: standing.clone(),
            commit: file.last_commit,
            committed: committed.clone(),
            app_bytes: 0,
            spine,
            counters,
            limits: config.into(),
            lazy: lazy.clone(),
            dirty: false,
            failing,
            swept_ms: 0,
            full_sync: None,
            fatal,
        };
        writer.load(inboxes)?;
        std::thread::Builder::new()
            .name("store".into())
            .stack_size(512 * 1024)
            .spawn(move || writer.run(inbox))
            .map_err(OpenError::Thread)?;
        let store = Self {
            jobs,
            committed,
            standing,
            id,
            state,
        };
        tokio::spawn(flush(store.clone().jobs, lazy, config.lazy_sync));
        Ok(store)
    }

    /// Identifies the file for as long as its content is continuous.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Why the store cannot be written, while it cannot.
    pub fn state(&self) -> watch::Receiver<Option<String>> {
        self.state.clone()
    }

    /// The last commit that reads will see.
    pub fn watermark(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The subscriptions of persistent sessions. While the lock is held none is added.
    pub fn standing(&self) -> RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job over; false if the store has stopped.
    pub(crate) async fn send(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Job,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        if !self.send(job(reply)).await {
            return Err(Refused::Stopped);
        }
        answer.await.map_err(|_| Refused::Stopped)?
    }

    /// Commits what waits and closes the file.
    pub async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Job::Stop { reply }).await {
            // An error means that it has stopped already.
            drop(done.await);
        }
    }
}

/// Asks for an fsync within `delay` of the first lazy commit, and for a sweep now and then.
async fn flush(jobs: mpsc::Sender<Job>, lazy: Arc<Notify>, delay: std::time::Duration) {
    loop {
        tokio::select! {
            () = lazy.notified() => tokio::time::sleep(delay / 2).await,
            () = tokio::time::sleep(SWEEP) => {}
            () = jobs.closed() => return,
        }
        if jobs.send(Job::Flush).await.is_err() {
            return;
        }
    }
}

/// The lower of two qualities.
pub fn lower(a: QoS, b: QoS) -> QoS {
    a.min(b)
}
