//! What every cluster has from its first moment.

use crate::error::Result;
use crate::ops::{Api, WriteOptions};
use crate::schema::strict::{FieldValidation, Parsed};
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

/// The namespaces, accounts and roles that clients expect to find.
pub async fn bootstrap(api: &Api) -> Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({"metadata": {"name": name}});
        ensure(api, ("", "v1", "namespaces"), "", namespace).await?;
        furnish(api, name).await?;
    }
    const RBAC: &str = "rbac.authorization.k8s.io";
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "cluster-admin"}, "rules": all});
    ensure(api, (RBAC, "v1", "clusterroles"), "", role).await?;
    let binding = json!({"metadata": {"name": "cluster-admin"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": crate::auth::MASTERS}]});
    ensure(api, (RBAC, "v1", "clusterrolebindings"), "", binding).await?;
    Ok(())
}

/// What every namespace has: an account to run as, and the CA to verify the API with.
pub(super) async fn furnish(api: &Api, ns: &str) -> Result<()> {
    let account = json!({"metadata": {"name": "default"}});
    ensure(api, ("", "v1", "serviceaccounts"), ns, account).await?;
    let ca = json!({"metadata": {"name": "kube-root-ca.crt", "annotations": {
        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc."}},
        "data": {"ca.crt": api.ca}});
    ensure(api, ("", "v1", "configmaps"), ns, ca).await?;
    Ok(())
}
