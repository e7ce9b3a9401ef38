//! What every cluster has from its first moment.

use crate::error::Result;
use crate::ops::{Api, WriteOptions};
use crate::schema::strict::{FieldValidation, Parsed};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

pub(super) fn options() -> WriteOptions {
    WriteOptions {
        dry_run: false,
        manager: "edgebus-standalone".into(),
        manager_given: true,
        validation: FieldValidation::Ignore,
        force: false,
        applied: false,
    }
}

/// Creates an object unless it is there. Says whether it did.
pub(super) async fn ensure(
    api: &Api,
    (group, version, plural): (&str, &str, &str),
    ns: &str,
    object: Value,
) -> Result<bool> {
    let now = api.now();
    let Some(resource) = now.find(group, version, plural) else {
        return Ok(false);
    };
    let name = crate::meta::name(&object);
    let key = crate::store::Key::new(&resource.storage, ns, name);
    if api.store.get(&key).await?.is_some() {
        return Ok(false);
    }
    let parsed = Parsed {
        value: object,
        duplicates: Vec::new(),
    };
    match api.create_parsed(resource, ns, parsed, &options()).await {
        Ok(_) => Ok(true),
        Err(error) if error.reason == "AlreadyExists" => Ok(false),
        Err(error) => Err(error),
    }
}

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The namespaces, accounts and roles that clients expect to find. What can be made side by
/// side is, so that it shares commits and a first start is quick.
pub async fn bootstrap(api: &Api) -> Result<()> {
    let namespaces = NAMESPACES.map(|name| {
        let namespace = json!({"metadata": {"name": name}});
        ensure(api, ("", "v1", "namespaces"), "", namespace)
    });
    try_join_all(namespaces).await?;
    let furnished = try_join_all(NAMESPACES.map(|name| furnish(api, name)));
    const RBAC: &str = "rbac.authorization.k8s.io";
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "cluster-admin"}, "rules": all});
    let binding = json!({"metadata": {"name": "cluster-admin"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": crate::auth::MASTERS}]});
    let role = ensure(api, (RBAC, "v1", "clusterroles"), "", role);
    let binding = ensure(api, (RBAC, "v1", "clusterrolebindings"), "", binding);
    tokio::try_join!(furnished, role, binding)?;
    Ok(())
}

/// What every namespace has: an account to run as, and the CA to verify the API with.
pub(super) async fn furnish(api: &Api, ns: &str) -> Result<()> {
    let account = json!({"metadata": {"name": "default"}});
    let account = ensure(api, ("", "v1", "serviceaccounts"), ns, account);
    let ca = json!({"metadata": {"name": "kube-root-ca.crt", "annotations": {
        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc."}},
        "data": {"ca.crt": api.ca}});
    let ca = ensure(api, ("", "v1", "configmaps"), ns, ca);
    tokio::try_join!(account, ca)?;
    Ok(())
}
