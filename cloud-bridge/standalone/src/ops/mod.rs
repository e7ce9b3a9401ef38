//! The verbs of the API over the store: what is common to all kinds.

mod body;
mod create;
mod delete;
mod list;
mod names;
mod patch;
pub mod pods;
pub mod scale;
pub mod selector;
mod update;
pub mod watch;

pub use body::{Body, MOST_BYTES};
pub use delete::{DeleteOptions, Deleted, Propagation};
pub use list::{ListOptions, Listed};
pub use patch::PatchKind;
pub(crate) use update::may_go;

use crate::auth::Tokens;
use crate::error::{ApiError, Result, Subject};
use crate::registry::{CRDS, Registry, Resource, Snapshot};
use crate::schema::openapi::Documents;
use crate::schema::strict::FieldValidation;
use crate::store::{Change, Key, Obj, Outcome, Store};
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Everything a request needs; one per server.
pub struct Api {
    pub store: Store,
    pub registry: Registry,
    pub documents: Documents,
    pub tokens: Tokens,
    /// The CA that clients verify this server with, PEM.
    pub ca: String,
    /// Held while the custom kinds are read anew.
    pub refresh: tokio::sync::Mutex<()>,
    /// Ends watches when the server stops.
    pub stop: CancellationToken,
}

/// What a write request says beside its body.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// `fieldManager`, or what the User-Agent says.
    pub manager: String,
    /// Whether `fieldManager` was given: apply demands it.
    pub manager_given: bool,
    pub validation: FieldValidation,
    pub force: bool,
    /// Set by server-side apply, which records its fields itself.
    pub applied: bool,
}

/// One object and the endpoint it is written through.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub resource: &'a Arc<Resource>,
    pub ns: &'a str,
    pub name: &'a str,
    pub part: Part,
}

/// The endpoint of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// `namespaces/x/finalize`
    Finalize,
}

impl<'a> Target<'a> {
    pub fn main(resource: &'a Arc<Resource>, ns: &'a str, name: &'a str) -> Target<'a> {
        Target {
            resource,
            ns,
            name,
            part: Part::Main,
        }
    }

    pub fn key(&self) -> Key {
        Key::new(&self.resource.storage, self.ns, self.name)
    }

    pub fn subject(&self) -> Subject<'a> {
        Subject {
            group: &self.resource.group,
            plural: &self.resource.plural,
            name: self.name,
        }
    }
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    /// In the version that was asked for.
    pub object: Value,
    pub created: bool,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

impl Api {
    pub fn now(&self) -> Arc<Snapshot> {
        self.registry.now()
    }

    pub async fn get(&self, target: Target<'_>) -> Result<Obj> {
        self.store
            .get(&target.key())
            .await?
            .ok_or_else(|| ApiError::not_found(target.subject()))
    }

    /// Does an update, or only finds out what it would do.
    pub(crate) async fn change<F>(&self, key: &Key, dry_run: bool, mut decide: F) -> Result<Outcome>
    where
        F: FnMut(Option<&Obj>) -> Result<Change>,
    {
        if dry_run {
            let before = self.store.get(key).await?;
            let rev = before.as_ref().map_or(0, |o| o.rev);
            let (created, change) = (before.is_none(), decide(before.as_ref())?);
            let deleted = matches!(change, Change::Delete(_));
            let object = match change {
                Change::Keep => before,
                Change::Put(value) | Change::Delete(value) => Some(Obj { rev, value }),
            };
            return Ok(Outcome {
                object,
                created,
                deleted,
            });
        }
        if &*key.kind != CRDS {
            return self.store.update(key, decide).await;
        }
        // A kind is served before anyone can see its definition established, and no longer
        // when its definition is gone.
        let outcome = self
            .store
            .update(key, |old| {
                let change = decide(old)?;
                match &change {
                    Change::Keep => {}
                    Change::Put(value) => self.registry.serve(&key.name, Some(value)),
                    Change::Delete(_) => self.registry.serve(&key.name, None),
                }
                Ok(change)
            })
            .await;
        // What was announced may not have come about, or may have crossed another change.
        self.refresh_custom().await?;
        outcome
    }

    /// Makes the served kinds those of the stored definitions.
    pub async fn refresh_custom(&self) -> Result<()> {
        // One at a time, so that an older list never replaces a newer one.
        let _turn = self.refresh.lock().await;
        let (definitions, _) = self.store.list(CRDS, None, None).await?;
        let values: Vec<Value> = definitions.iter().map(|o| o.unpack().value).collect();
        self.registry.replace_custom(&values);
        Ok(())
    }
}

/// Runs the parser of continue tokens over what a client could send.
#[cfg(test)]
pub fn untrusted(text: &str) {
    list::Continue::decode(text);
}
