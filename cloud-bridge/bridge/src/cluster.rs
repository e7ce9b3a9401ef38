//! The cluster: reaching it, telling it from another, and what must exist in it before nodes may come.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rows;

/// Who writes, in `managedFields`.
pub const FIELD_MANAGER: &str = "edgebus-bridge";
/// Every single call to the API ends after this.
pub const CALL: Duration = Duration::from_secs(15);

/// What leads to the API is missing or wrong: trying again will not help.
#[derive(Debug, thiserror::Error)]
pub enum BadKubeconfig {
    #[error("kubeconfig {path}: {why}")]
    File { path: String, why: String },
    #[error(
        "no kubeconfig was given (--kubeconfig FILE), and this process does not run in a pod: {0}"
    )]
    NotInPod(String),
}

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// A client for the API that the kubeconfig names, or for the cluster this process runs in. Asks nothing of it.
///
/// # Errors
/// [`BadKubeconfig`], unless a command that the kubeconfig names for credentials failed.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let shown = || kubeconfig.map_or("of the pod".to_owned(), |path| path.display().to_string());
    let wrong = |error: &(dyn std::error::Error + 'static)| BadKubeconfig::File {
        path: shown(),
        why: chain(error),
    };
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| wrong(&e))?
        }
        None => kube::Config::incluster().map_err(|e| BadKubeconfig::NotInPod(chain(&e)))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // Retries are the link's business: it knows which state is still wanted.
    config.default_retry = false;
    match Client::try_from(config) {
        Ok(client) => Ok(client),
        Err(error @ kube::Error::Auth(_)) => {
            Err(anyhow::Error::new(error).context("get credentials for the Kubernetes API"))
        }
        Err(error) => Err(wrong(&error).into()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", CALL.as_secs())]
struct NoAnswer;

/// A call with a deadline. The error says what was attempted.
pub async fn call<T>(what: &str, work: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(CALL, work).await {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(_) => Err(NoAnswer).with_context(|| what.to_owned()),
    }
}

/// The status that the API answered with, if it did.
pub fn api_status(error: &anyhow::Error) -> Option<&kube::core::Status> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(kube::Error::Api(status)) => Some(status.as_ref()),
        _ => None,
    })
}

/// Whether the API did not answer at all.
pub fn unanswered(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<NoAnswer>() || cause.downcast_ref().is_some_and(crate::away::no_answer)
    })
}

/// HTTP code of the API's answer, if it gave one.
pub fn api_code(error: &anyhow::Error) -> Option<u16> {
    api_status(error).map(|status| status.code)
}

/// uid of kube-system: what tells one cluster from another.
pub async fn cluster_id(client: &Client) -> anyhow::Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = call("read namespace kube-system", api.get("kube-system")).await?;
    found
        .metadata
        .uid
        .filter(|uid| !uid.is_empty())
        .context("namespace kube-system has no uid")
}

/// Makes a namespace if it is not there.
pub async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    if call(&format!("read namespace {name}"), api.get_opt(name))
        .await?
        .is_some()
    {
        return Ok(());
    }
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    let made = call(
        &format!("create namespace {name}"),
        api.create(&PostParams::default(), &namespace),
    )
    .await;
    match made {
        Err(error) if api_code(&error) != Some(409) => Err(error),
        _ => Ok(()),
    }
}

/// Installs the device CRDs, or brings older ones of ours up to date, and waits until they are served.
pub async fn ensure_crds(client: &Client, stop: &CancellationToken) -> anyhow::Result<()> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &rows::crd_resource());
    for crd in edgebus_api::crds() {
        let name = crd["metadata"]["name"]
            .as_str()
            .context("a CRD without a name")?
            .to_owned();
        let what = format!("CRD {name}");
        match call(&format!("read {what}"), api.get_opt(&name)).await? {
            None => {
                tracing::info!("installing {what}");
                let object: DynamicObject = serde_json::from_value(crd)?;
                let made = call(
                    &format!("create {what}"),
                    api.create(&PostParams::default(), &object),
                )
                .await;
                match made {
                    Err(error) if api_code(&error) != Some(409) => return Err(error),
                    _ => {}
                }
            }
            Some(there) if differs(&there.data["spec"], &crd["spec"]) => {
                tracing::info!("refreshing {what}");
                let params = PatchParams {
                    field_manager: Some(FIELD_MANAGER.into()),
                    ..Default::default()
                };
                let patch = json!({ "spec": crd["spec"] });
                call(
                    &format!("patch {what}"),
                    api.patch(&name, &params, &Patch::Merge(patch)),
                )
                .await?;
            }
            Some(_) => {}
        }
        established(&api, &name, stop).await?;
    }
    Ok(())
}

async fn established(
    api: &Api<DynamicObject>,
    name: &str,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let crd = call(&format!("read CRD {name}"), api.get(name)).await?;
        let conditions = crd.data["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        if ready || stop.is_cancelled() {
            return Ok(());
        }
        if tokio::time::Instant::now() > until {
            anyhow::bail!(
                "CRD {name} is not established after 30 s: {}",
                crd.data["status"]
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether anything that is wanted is missing or other. What the API server added by itself does not count.
fn differs(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .any(|(key, value)| differs(there.get(key).unwrap_or(&Value::Null), value)),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() != wanted.len() || there.iter().zip(wanted).any(|(t, w)| differs(t, w))
        }
        // The API server leaves out zero values.
        (Value::Null, Value::Number(zero)) => zero.as_i64() != Some(0),
        (there, wanted) => there != wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = json!({ "a": [{ "x": 1, "p": 0 }], "b": { "c": "d" } });
        let there = json!({ "a": [{ "x": 1, "y": "default" }], "b": { "c": "d" }, "z": 1 });
        assert!(!differs(&there, &wanted));
        assert!(differs(&there, &json!({ "a": [{ "x": 2 }] })));
        assert!(differs(&there, &json!({ "a": [] })));
        assert!(differs(&there, &json!({ "new": "field" })));
    }
}
