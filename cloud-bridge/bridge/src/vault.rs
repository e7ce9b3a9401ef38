//! Secrets in the bridge's own namespace, as maps of text: the CA, tokens and records are kept there and
//! nowhere else. A write names the version it was made from, so that two writers never undo each other.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};

use crate::cluster::{api_code, call};

/// Says what a Secret of ours is; its values are below.
pub const ROLE_LABEL: &str = "edgebus.io/role";
pub const ROLE_CA: &str = "enrolment-ca";
pub const ROLE_TOKEN: &str = "token";
pub const ROLE_NODE: &str = "node";
pub const ROLE_REVOKED: &str = "revoked";

/// One Secret.
#[derive(Debug, Clone, Default)]
pub struct Leaf {
    pub name: String,
    pub data: BTreeMap<String, String>,
    version: Option<String>,
    uid: Option<String>,
}

impl Leaf {
    pub fn new(name: &str) -> Leaf {
        Leaf {
            name: name.to_owned(),
            ..Leaf::default()
        }
    }

    pub fn get(&self, key: &str) -> &str {
        self.data.get(key).map_or("", String::as_str)
    }

    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.data.insert(key.to_owned(), value.into());
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrote {
    Done,
    /// Somebody else wrote or made it meanwhile: read again.
    Lost,
}

/// See the module.
#[derive(Clone)]
pub struct Vault {
    api: Api<Secret>,
    namespace: String,
}

impl Vault {
    pub fn new(client: &Client, namespace: &str) -> Vault {
        Vault {
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    fn what(&self, verb: &str, name: &str) -> String {
        format!("{verb} secret {}/{name}", self.namespace)
    }

    pub async fn get(&self, name: &str) -> anyhow::Result<Option<Leaf>> {
        let found = call(&self.what("read", name), self.api.get_opt(name)).await?;
        Ok(found.map(from_secret))
    }

    pub async fn list(&self, role: &str) -> anyhow::Result<Vec<Leaf>> {
        let params = ListParams::default().labels(&format!("{ROLE_LABEL}={role}"));
        let found = call(&self.what("list", role), self.api.list(&params)).await?;
        Ok(found.items.into_iter().map(from_secret).collect())
    }

    pub async fn create(&self, leaf: &Leaf, role: &str) -> anyhow::Result<Wrote> {
        let made = call(
            &self.what("create", &leaf.name),
            self.api
                .create(&PostParams::default(), &to_secret(leaf, role)),
        )
        .await;
        wrote(made.map(drop))
    }

    /// Fails as [`Wrote::Lost`] if the Secret is not the one that was read.
    pub async fn replace(&self, leaf: &Leaf, role: &str) -> anyhow::Result<Wrote> {
        let done = call(
            &self.what("write", &leaf.name),
            self.api
                .replace(&leaf.name, &PostParams::default(), &to_secret(leaf, role)),
        )
        .await;
        wrote(done.map(drop))
    }

    /// True if there was one.
    pub async fn delete(&self, leaf: &Leaf) -> anyhow::Result<bool> {
        let params = DeleteParams {
            preconditions: leaf.uid.clone().map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let done = call(
            &self.what("delete", &leaf.name),
            self.api.delete(&leaf.name, &params),
        )
        .await;
        match done {
            Ok(_) => Ok(true),
            Err(error) if api_code(&error) == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn wrote(result: anyhow::Result<()>) -> anyhow::Result<Wrote> {
    match result {
        Ok(()) => Ok(Wrote::Done),
        Err(error) if matches!(api_code(&error), Some(409 | 404)) && !namespace_gone(&error) => {
            Ok(Wrote::Lost)
        }
        Err(error) => Err(error),
    }
}

fn namespace_gone(error: &anyhow::Error) -> bool {
    crate::cluster::api_status(error).is_some_and(|status| status.message.contains("namespaces"))
}

/// A Secret that a watch brought.
pub fn from_secret(secret: Secret) -> Leaf {
    let data = secret.data.unwrap_or_default();
    Leaf {
        name: secret.metadata.name.unwrap_or_default(),
        version: secret.metadata.resource_version,
        uid: secret.metadata.uid,
        data: data
            .into_iter()
            .filter_map(|(key, ByteString(bytes))| Some((key, String::from_utf8(bytes).ok()?)))
            .collect(),
    }
}

fn to_secret(leaf: &Leaf, role: &str) -> Secret {
    let mut secret = Secret {
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    secret.metadata.name = Some(leaf.name.clone());
    secret.metadata.resource_version = leaf.version.clone();
    secret.metadata.labels = Some(BTreeMap::from([
        (ROLE_LABEL.to_owned(), role.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "edgebus".to_owned()),
    ]));
    secret.data = Some(
        leaf.data
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.clone().into_bytes())))
            .collect(),
    );
    secret
}
