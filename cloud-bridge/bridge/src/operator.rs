//! A few things that an operator does with kubectl, for `edgebus demo`, which cannot count on one.

use crate::cluster;
use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;
use std::path::Path;

/// Somebody with a kubeconfig.
pub struct Operator {
    client: Client,
    url: String,
}

impl Operator {
    /// Reads the kubeconfig and asks the API whether it is there.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        if !kubeconfig.exists() {
            bail!("{} does not exist yet", kubeconfig.display());
        }
        let client = cluster::client(Some(kubeconfig)).await?;
        client
            .apiserver_version()
            .await
            .context("asking the API for its version")?;
        let text = std::fs::read_to_string(kubeconfig)?;
        let url = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("server:"))
            .unwrap_or_default();
        Ok(Self {
            url: url.trim().trim_matches('"').to_owned(),
            client,
        })
    }

    /// The API's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn api(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if kind == "DeviceStatus" {
            resource.plural = "devicestatuses".to_owned();
        }
        match namespace {
            Some(ns) => Api::namespaced_with(self.client.clone(), ns, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Creates or changes an object, as `kubectl apply --server-side` does.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let object: DynamicObject =
            serde_json::from_value(object.clone()).context("not a Kubernetes object")?;
        let Some(types) = &object.types else {
            bail!("the object says no apiVersion and kind")
        };
        let api = self.api(
            &types.api_version,
            &types.kind,
            object.namespace().as_deref(),
        );
        let params = PatchParams::apply("edgebus-demo").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .with_context(|| format!("applying {} {}", types.kind, object.name_any()))?;
        Ok(())
    }

    /// A JSON patch (RFC 6902).
    pub async fn patch(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<()> {
        let patch = serde_json::from_value(patch.clone()).context("not a JSON patch")?;
        let api = self.api(api_version, kind, Some(namespace));
        api.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch))
            .await
            .with_context(|| format!("patching {kind} {name}"))?;
        Ok(())
    }

    /// An object as it is now.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value> {
        let object = self
            .api(api_version, kind, namespace)
            .get(name)
            .await
            .with_context(|| format!("reading {kind} {name}"))?;
        Ok(serde_json::to_value(object)?)
    }
}
