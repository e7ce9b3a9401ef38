//! The Kubernetes API by kube-rs, for threads that do one thing after another.

use crate::cloud::Cloud;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A call that takes longer has failed: the API server may have been killed meanwhile.
const CALL: Duration = Duration::from_secs(5);

/// A client of its own.
pub struct Kube {
    runtime: Runtime,
    client: Client,
}

impl Kube {
    /// As the administrator of this cloud.
    pub fn new(cloud: &Cloud) -> Self {
        Self::open(&cloud.kubeconfig()).expect("the kubeconfig makes a client")
    }

    fn open(kubeconfig: &Path) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let mut config =
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            config.connect_timeout = Some(CALL);
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// A kind in the namespace `default`; nodes are everywhere.
    pub fn kind(&self, plural: &str) -> Api<DynamicObject> {
        let (group, version, kind) = match plural {
            "devices" => (edgebus_api::GROUP, edgebus_api::VERSION, "Device"),
            "devicemodels" => (edgebus_api::GROUP, edgebus_api::VERSION, "DeviceModel"),
            "devicestatuses" => (edgebus_api::GROUP, edgebus_api::VERSION, "DeviceStatus"),
            "configmaps" => ("", "v1", "ConfigMap"),
            "nodes" => ("", "v1", "Node"),
            other => panic!("the tests know no kind {other}"),
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match plural {
            "nodes" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), "default", &resource),
        }
    }

    /// Runs one future here.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn call<T>(
        &self,
        what: String,
        work: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, String> {
        match self.run(async { tokio::time::timeout(CALL, work).await }) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(format!("{what}: {e}")),
            Err(_) => Err(format!("{what}: no answer within {CALL:?}")),
        }
    }

    /// One object.
    pub fn get(&self, plural: &str, name: &str) -> Result<Value, String> {
        let found = self.call(format!("get {plural} {name}"), self.kind(plural).get(name))?;
        serde_json::to_value(found).map_err(|e| e.to_string())
    }

    /// All objects of a kind.
    pub fn list(&self, plural: &str) -> Result<Vec<Value>, String> {
        let found = self.call(
            format!("list {plural}"),
            self.kind(plural).list(&ListParams::default()),
        )?;
        found
            .items
            .into_iter()
            .map(|o| serde_json::to_value(o).map_err(|e| e.to_string()))
            .collect()
    }

    /// Makes an object from its JSON; one that is there already is an error.
    pub fn create(&self, plural: &str, object: Value) -> Result<(), String> {
        let object: DynamicObject = serde_json::from_value(object).map_err(|e| e.to_string())?;
        let what = format!(
            "create {plural} {}",
            object.metadata.name.as_deref().unwrap_or_default()
        );
        self.call(
            what,
            self.kind(plural).create(&PostParams::default(), &object),
        )
        .map(drop)
    }

    /// A merge patch; Ok = the API has acknowledged it.
    pub fn patch(&self, plural: &str, name: &str, patch: &Value) -> Result<(), String> {
        let api = self.kind(plural);
        self.call(
            format!("patch {plural} {name}"),
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)),
        )
        .map(drop)
    }

    /// Deletes an object.
    pub fn delete(&self, plural: &str, name: &str) -> Result<(), String> {
        self.call(
            format!("delete {plural} {name}"),
            self.kind(plural).delete(name, &DeleteParams::default()),
        )
        .map(drop)
    }

    /// Whether the node is Ready; the condition if it is not.
    pub fn node_ready(&self, node: &str) -> Result<(), String> {
        let status = self.get("nodes", node)?["status"].take();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        match conditions.iter().find(|c| c["type"] == "Ready") {
            Some(ready) if ready["status"] == "True" => Ok(()),
            other => Err(format!("{node} is not Ready: {other:?}")),
        }
    }
}

/// The reported value of a property in a DeviceStatus.
pub fn reported(status: &Value, property: &str) -> Option<String> {
    let twins = status["status"]["twins"].as_array()?;
    let twin = twins.iter().find(|t| t["propertyName"] == property)?;
    twin["reported"]["value"].as_str().map(str::to_owned)
}

/// A Modbus TCP model: `target` can be written, `actual` only read.
pub fn model(name: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "protocol": "modbus", "properties": [
            { "name": "target", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "65535" },
            { "name": "actual", "type": "INT", "accessMode": "ReadOnly" },
        ]},
    })
}

/// The properties of a device of [`model`]: `target` in register 0, `actual` in register 1.
pub fn properties(cycle_ms: u32, target: u16) -> Value {
    let visitor = |register: &str, offset: u16| json!({ "protocolName": "modbus", "configData": { "register": register, "offset": offset, "limit": 1 } });
    json!([
        { "name": "target", "collectCycle": cycle_ms, "reportToCloud": true, "desired": { "value": target.to_string() },
          "visitors": visitor("HoldingRegister", 0) },
        { "name": "actual", "collectCycle": cycle_ms, "reportToCloud": true, "visitors": visitor("InputRegister", 1) },
    ])
}

/// A device of [`model`] behind a port on loopback.
pub fn device(
    name: &str,
    model: &str,
    node: &str,
    port: u16,
    unit: u8,
    properties: Value,
) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "deviceModelRef": { "name": model }, "nodeName": node,
            "protocol": { "protocolName": "modbus", "configData": {
                "communicateMode": "TCP", "ip": "127.0.0.1", "port": port.to_string(), "slaveID": unit,
            }},
            "properties": properties,
        },
    })
}
