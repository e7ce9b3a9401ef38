//! The warden itself: takes the lock, clears up after the last one, starts the broker, then the
//! units and whatever is in `mappers.d/`, and ends all of it in the opposite order.

use crate::board::{Board, NodeState, UnitState, UnitStatus};
use crate::child;
use crate::clients::{self, private_dir};
use crate::config::{Config, LinkMode, Paths};
use crate::leftover;
use crate::scan::{self, Change, Print, Scan};
use crate::token::Tokens;
use crate::unit::{Kept, Kind};
use anyhow::{Context, Result, bail};
use edgebus_bus::Role;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::umask;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often `mappers.d/` and the enrolment are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What all parts of a running node share.
pub(crate) struct Node {
    pub config: Config,
    pub paths: Paths,
    pub tokens: Tokens,
    pub board: Board,
    /// Where the broker listens on TCP, once it does.
    pub tcp: watch::Sender<Option<String>>,
}

impl Node {
    /// Waits for the broker's first word.
    pub async fn tcp(&self) -> Result<String> {
        let mut tcp = self.tcp.subscribe();
        let known = tcp.wait_for(Option::is_some).await?;
        known.clone().context("the broker's address is known")
    }
}

/// Runs a node until `stop`. Returns when everything it started has ended.
pub async fn run(config: Config, stop: CancellationToken) -> Result<()> {
    config.check()?;
    // Inherited by the broker and all units: databases, keys and logs are their owner's alone.
    umask(Mode::RWXG | Mode::RWXO);
    let paths = config.paths();
    private_dir(&config.data_dir)
        .with_context(|| format!("making the data folder {:?}", config.data_dir))?;
    let _lock = lock(&paths.lock)?;
    make_run_dir(&config, &paths)?;
    let _run_lock = lock(&paths.run_lock)?;
    leftover::end(&paths.state, &config.run_dir).await;
    let board = Board::new(NodeState {
        node: config.node.to_string(),
        pid: std::process::id(),
        boot_id: child::boot_id(),
        tcp: String::new(),
        bus_socket: paths.bus_socket.display().to_string(),
        admin_socket: paths.admin_socket.display().to_string(),
        app_socket: paths.app_socket.display().to_string(),
        clients: paths.clients.display().to_string(),
        units: BTreeMap::new(),
    });
    let node = Arc::new(Node {
        tokens: Tokens::default(),
        tcp: watch::channel(None).0,
        board,
        paths,
        config,
    });
    let mut warden = Warden::new(node);
    let outcome = warden.serve(&stop).await;
    warden.end().await;
    outcome
}

struct Warden {
    node: Arc<Node>,
    broker: Option<Kept>,
    units: BTreeMap<String, Kept>,
    /// Mappers that were removed and have not ended yet.
    ending: JoinSet<String>,
    ending_names: BTreeSet<String>,
    scan: Scan,
    refused: BTreeSet<String>,
    /// Mappers by name that the bus may hold something of.
    known: BTreeSet<String>,
    sealing: Option<Print>,
}

impl Warden {
    fn new(node: Arc<Node>) -> Self {
        let known = fs::read(&node.paths.known)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            broker: None,
            units: BTreeMap::new(),
            ending: JoinSet::new(),
            ending_names: BTreeSet::new(),
            scan: Scan::default(),
            refused: BTreeSet::new(),
            known,
            sealing: Print::of(&node.paths.sealing_key),
            node,
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<()> {
        let node = self.node.clone();
        // Before the broker starts, so that it knows them when it listens.
        let viewer = node.tokens.allow(Role::Viewer, "viewer")?;
        let app = node.tokens.allow(Role::App, "app")?;
        for unit in &node.config.units {
            node.tokens.allow(role_of(unit), unit)?;
        }
        if node.config.link != LinkMode::Never {
            node.tokens.allow(Role::Link, "link")?;
        }
        self.broker = Some(Kept::start(&node, "broker", Kind::Broker));
        for unit in &node.config.units {
            let kept = Kept::start(&node, unit, Kind::Own(role_of(unit)));
            self.units.insert(unit.clone(), kept);
        }
        let mut tcp = node.tcp.subscribe();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => self.look().await?,
                changed = tcp.changed() => {
                    changed?;
                    let at = tcp.borrow_and_update().clone().unwrap_or_default();
                    node.board.change(|s| s.tcp.clone_from(&at));
                    for (name, token) in [("viewer", &viewer), ("app", &app)] {
                        clients::write(&node.paths.clients.join(name), &at, name, token)
                            .context("writing client settings")?;
                    }
                }
                () = node.board.changed.notified() => self.save(),
                Some(ended) = self.ending.join_next() => {
                    let name = ended?;
                    self.ending_names.remove(&name);
                    // Only now: while it ran it would have said everything again.
                    node.tokens.forget(&name);
                    node.board.change(|s| {
                        s.units.remove(&name);
                    });
                    self.known.remove(&name);
                    self.remember();
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// What is there now that was not, and the other way round.
    async fn look(&mut self) -> Result<()> {
        let node = self.node.clone();
        let enrolled = match node.config.link {
            LinkMode::Never => false,
            LinkMode::Always => true,
            LinkMode::WhenEnrolled => node.paths.enrolled.exists(),
        };
        if enrolled && !self.units.contains_key("link") {
            let kept = Kept::start(&node, "link", Kind::Own(Role::Link));
            self.units.insert("link".into(), kept);
        } else if !enrolled && let Some(link) = self.units.remove("link") {
            tracing::info!("no longer enrolled: ending the link");
            link.end().await;
        }
        let sealing = Print::of(&node.paths.sealing_key);
        if sealing != self.sealing {
            self.sealing = sealing;
            for unit in ["edged", "devicetwin"] {
                if let Some(kept) = self.units.get(unit) {
                    kept.replaced.notify_one();
                }
            }
        }
        let mut found = scan::list(&node.config.mappers_d);
        // One that is back before it has ended is new once it has.
        found
            .mappers
            .retain(|name, _| !self.ending_names.contains(name));
        self.show_refused(&found.refused);
        let first: Option<BTreeSet<_>> = self
            .scan
            .is_new()
            .then(|| found.mappers.keys().cloned().collect());
        for change in self.scan.step(found.mappers) {
            self.change(change)?;
        }
        // What was removed while no warden ran.
        for name in first.map_or_else(BTreeSet::new, |here| &self.known - &here) {
            tracing::info!(
                unit = name,
                "its file is gone: clearing what it had retained"
            );
            node.tokens.forget(&name);
            self.known.remove(&name);
            self.remember();
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Added { name, path } => {
                // Known before it runs, so that a crash in between still clears it later.
                self.known.insert(name.clone());
                self.remember();
                self.node.tokens.allow(Role::Mapper, &name)?;
                let kept = Kept::start(&self.node, &name, Kind::Mapper(path));
                self.units.insert(name, kept);
            }
            Change::Replaced { name } => {
                if let Some(kept) = self.units.get(&name) {
                    kept.replaced.notify_one();
                }
            }
            Change::Removed { name } => {
                tracing::info!(unit = name, "its file is gone: ending it");
                if let Some(kept) = self.units.remove(&name) {
                    self.ending_names.insert(name.clone());
                    self.ending.spawn(async move {
                        kept.end().await;
                        name
                    });
                }
            }
        }
        Ok(())
    }

    /// Files that are no mappers are shown beside those that are, under their file name.
    fn show_refused(&mut self, refused: &BTreeMap<String, String>) {
        let now: BTreeSet<String> = refused.keys().cloned().collect();
        if now == self.refused {
            return;
        }
        let before = std::mem::replace(&mut self.refused, now);
        let dir = &self.node.config.mappers_d;
        self.node.board.change(|state| {
            for file in &before {
                state.units.remove(&shown(file));
            }
            for (file, why) in refused {
                tracing::warn!(file, why, "not a mapper");
                let unit = UnitState {
                    name: file.clone(),
                    state: UnitStatus::Refused,
                    exe: dir.join(file).display().to_string(),
                    why: Some(why.clone()),
                    ..UnitState::default()
                };
                state.units.insert(shown(file), unit);
            }
        });
    }

    fn save(&self) {
        if let Err(error) = self.node.board.save(&self.node.paths.state) {
            tracing::warn!(%error, "units.json is not written");
        }
    }

    fn remember(&self) {
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        if let Err(error) = fs::write(&self.node.paths.known, text) {
            tracing::warn!(%error, "mappers.json is not written");
        }
    }

    /// Units first, the broker last: they have last words.
    async fn end(mut self) {
        let mut all = JoinSet::new();
        for (_, unit) in std::mem::take(&mut self.units) {
            all.spawn(unit.end());
        }
        while all.join_next().await.is_some() {}
        while self.ending.join_next().await.is_some() {}
        if let Some(broker) = self.broker.take() {
            broker.end().await;
        }
        for dir in [&self.node.paths.clients, &self.node.paths.unit_clients] {
            if let Err(error) = fs::remove_dir_all(dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(?dir, %error, "tokens are left behind; they are void");
            }
        }
        let paths = &self.node.paths;
        for file in [
            &paths.bus_socket,
            &paths.admin_socket,
            &paths.app_socket,
            &paths.state,
        ] {
            if let Err(error) = fs::remove_file(file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(?file, %error, "is left behind");
            }
        }
    }
}

/// How a refused file is filed: no unit's name can look like this.
fn shown(file: &str) -> String {
    format!("mappers.d/{file}")
}

fn role_of(unit: &str) -> Role {
    match unit {
        "edged" => Role::Edged,
        "link" => Role::Link,
        _ => Role::DeviceTwin,
    }
}

/// Held as long as the file is open. Two wardens on one store would fight over everything.
fn lock(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("opening {path:?}"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).unwrap_or_default();
        bail!(
            "another `edgebus node` (pid {}) runs on this folder: {path:?} is locked",
            pid.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The run folder is for us and our group, its token folders for us only. Workloads need not enter
/// it: a pod that asks gets `app/` mounted.
fn make_run_dir(config: &Config, paths: &Paths) -> Result<()> {
    let run = &config.run_dir;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(run)
        .and_then(|()| fs::set_permissions(run, fs::Permissions::from_mode(0o750)))
        .with_context(|| format!("making the run folder {run:?}"))?;
    for dir in [&paths.clients, &paths.unit_clients] {
        private_dir(dir).with_context(|| format!("making {dir:?}"))?;
    }
    if let Some(admin) = paths.admin_socket.parent() {
        private_dir(admin).with_context(|| format!("making {admin:?}"))?;
    }
    if let Some(app) = paths.app_socket.parent() {
        fs::create_dir_all(app).with_context(|| format!("making {app:?}"))?;
    }
    Ok(())
}
