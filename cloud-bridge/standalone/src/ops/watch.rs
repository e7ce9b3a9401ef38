//! Watches: the changes of a selection, from a version on, as a stream.
//!
//! An object that comes to match the selectors is ADDED, one that no longer does is DELETED,
//! whatever happened to it in the store. A watch reads the history as fast as its client
//! reads the stream; one that falls out of the history gets ERROR 410 and ends.

use super::list::version;
use super::{Api, ListOptions};
use crate::error::{ApiError, Result};
use crate::http::Query;
use crate::registry::Resource;
use crate::schema::Cause;
use crate::store::{Event, EventKind, Packed};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct WatchOptions {
    pub list: ListOptions,
    pub bookmarks: bool,
    /// Whether the present objects come first, and a bookmark after them.
    pub initial_events: bool,
    pub timeout: Duration,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

impl WatchOptions {
    pub fn parse(query: &Query, resource: &Resource) -> Result<WatchOptions> {
        let mut list = ListOptions::parse(query, resource)?;
        list.version = version(query)?;
        let initial_events = query.flag("sendInitialEvents");
        let matching = query.get("resourceVersionMatch");
        if initial_events && matching != Some("NotOlderThan") {
            let cause = Cause::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "ListOptions",
                "",
                &[cause],
            ));
        }
        let timeout = query
            .number("timeoutSeconds")?
            .and_then(|s| u64::try_from(s).ok())
            .filter(|s| *s > 0)
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        Ok(WatchOptions {
            list,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
            timeout,
        })
    }
}

/// One line of a watch, before it is put into the form the client asked for.
#[derive(Clone, Debug)]
pub enum Line {
    Object(&'static str, Arc<Packed>),
    /// A version reached; true for the one that ends the initial events.
    Bookmark(u64, bool),
    Error(Value),
}

/// A watch under way.
pub struct Watch {
    api: Arc<Api>,
    resource: Arc<Resource>,
    ns: Option<String>,
    options: WatchOptions,
    at: u64,
    ready: VecDeque<Line>,
    committed: tokio::sync::watch::Receiver<u64>,
    ends: Instant,
    bookmark_at: Instant,
    over: bool,
}

/// Begins a watch: what it starts from is decided here, so that errors have their status.
pub async fn watch(
    api: Arc<Api>,
    resource: Arc<Resource>,
    ns: Option<String>,
    options: WatchOptions,
) -> Result<Watch> {
    let committed = api.store.committed();
    let mut ready = VecDeque::new();
    let from_now = options.list.version.is_none();
    let at = if from_now || options.initial_events {
        let mut list = options.list.clone();
        (list.limit, list.from) = (None, None);
        let listed = api.list(&resource, ns.as_deref(), &list).await?;
        ready.extend(listed.objects.into_iter().map(|o| Line::Object("ADDED", o)));
        if options.initial_events {
            ready.push_back(Line::Bookmark(listed.rev, true));
        }
        listed.rev
    } else {
        options.list.version.unwrap_or(0)
    };
    let now = Instant::now();
    Ok(Watch {
        ends: now + options.timeout,
        bookmark_at: now + BOOKMARK_EVERY,
        api,
        resource,
        ns,
        options,
        at,
        ready,
        committed,
        over: false,
    })
}

impl Watch {
    /// The next lines; `None` when the watch is over.
    pub async fn next(&mut self) -> Option<Vec<Line>> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.ready.drain(..).collect());
            }
            if self.over {
                return None;
            }
            self.committed.mark_unchanged();
            match self.api.store.events(&self.resource.storage, self.at) {
                Ok((events, reached)) => {
                    self.at = reached;
                    let lines = events.iter().filter_map(|event| self.line(event));
                    let lines: Vec<Line> = lines.collect();
                    let more = !events.is_empty();
                    self.ready.extend(lines);
                    if more {
                        continue;
                    }
                }
                Err(error) => {
                    self.ready.push_back(Line::Error(error.to_status()));
                    self.over = true;
                    continue;
                }
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let stop = self.api.stop.clone();
        let until = match self.options.bookmarks {
            true => self.bookmark_at.min(self.ends),
            false => self.ends,
        };
        tokio::select! {
            changed = self.committed.changed() => self.over |= changed.is_err(),
            () = stop.cancelled() => self.over = true,
            () = tokio::time::sleep_until(until) => {
                let now = Instant::now();
                self.over |= now >= self.ends;
                if self.options.bookmarks {
                    self.bookmark_at = now + BOOKMARK_EVERY;
                    self.ready.push_back(Line::Bookmark(self.at, false));
                }
            }
        }
    }

    fn line(&self, event: &Event) -> Option<Line> {
        if self.ns.as_ref().is_some_and(|ns| *ns != event.key.ns) {
            return None;
        }
        let inside = |o: &Arc<Packed>| self.options.list.matches(o);
        let before = event.before.as_ref().is_some_and(inside);
        let after = event.kind != EventKind::Deleted && inside(&event.object);
        let word = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(Line::Object(word, event.object.clone()))
    }
}

/// The object of a bookmark.
pub fn bookmark(resource: &Resource, rev: u64, initial_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": rev.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
}
