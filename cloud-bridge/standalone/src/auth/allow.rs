//! Authorisation: members of `system:masters` may do everything, everybody may find out what
//! the server offers, and the rest is what the stored RBAC roles and bindings say.

use super::User;
use crate::error::{ApiError, Result, Subject};
use crate::meta::{array, namespace, strings, text};
use crate::ops::Api;
use crate::store::Obj;
use serde_json::Value;

/// A Kubernetes verb (`get`, `deletecollection`, …).
pub type Verb = String;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub verb: Verb,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub ns: String,
    pub name: String,
    /// Set for paths that name no resource.
    pub path: Option<String>,
}

impl Ask {
    pub fn path(verb: &str, path: &str) -> Ask {
        Ask {
            verb: verb.into(),
            path: Some(path.into()),
            ..Ask::default()
        }
    }

    fn qualified(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// 403 in Kubernetes' words.
    pub fn refused(&self, user: &User) -> ApiError {
        if let Some(path) = &self.path {
            let message = format!(
                "forbidden: User {:?} cannot {} path {path:?}",
                user.name, self.verb
            );
            return ApiError::new(http::StatusCode::FORBIDDEN, "Forbidden", message);
        }
        let resource = self.qualified();
        let place = match self.ns.as_str() {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace {ns:?}"),
        };
        let why = format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
            user.name, self.verb, self.group
        );
        let subject = Subject {
            group: &self.group,
            plural: &resource,
            name: &self.name,
        };
        ApiError::forbidden(subject, &why)
    }
}

const OPEN_PATHS: &[&str] = &["/healthz", "/readyz", "/livez", "/version"];
const DISCOVERY_PATHS: &[&str] = &["/api", "/apis", "/openapi"];
const SELF_REVIEWS: &[&str] = &[
    "selfsubjectreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
];

fn under(path: &str, roots: &[&str]) -> bool {
    roots
        .iter()
        .any(|root| path == *root || path.strip_prefix(root).is_some_and(|r| r.starts_with('/')))
}

/// Whether `user` may do what it asks.
pub async fn allowed(api: &Api, user: &User, ask: &Ask) -> Result<bool> {
    if user.is_master() {
        return Ok(true);
    }
    let known = user.groups.iter().any(|g| g == super::AUTHENTICATED);
    if let Some(path) = &ask.path
        && ask.verb == "get"
        && (under(path, OPEN_PATHS) || (known && under(path, DISCOVERY_PATHS)))
    {
        return Ok(true);
    }
    if known && ask.verb == "create" && SELF_REVIEWS.contains(&ask.resource.as_str()) {
        return Ok(true);
    }
    Ok(rules(api, user, &ask.ns)
        .await?
        .iter()
        .any(|rule| covers(rule, ask)))
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Every rule that holds for the user in a namespace, or in the cluster if `ns` is empty.
pub(super) async fn rules(api: &Api, user: &User, ns: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let (cluster, _) = api
        .store
        .list(&format!("{RBAC}/clusterrolebindings"), None, None)
        .await?;
    let local = match ns {
        "" => Vec::new(),
        ns => {
            let kind = format!("{RBAC}/rolebindings");
            api.store.list(&kind, Some(ns), None).await?.0
        }
    };
    for binding in cluster.iter().chain(&local) {
        let binding = binding.unpack();
        if !array(&binding.value, "/subjects")
            .iter()
            .any(|s| is_subject(s, user))
        {
            continue;
        }
        if let Some(role) = role_of(api, &binding.value).await? {
            found.extend_from_slice(array(&role.value, "/rules"));
        }
    }
    Ok(found)
}

async fn role_of(api: &Api, binding: &Value) -> Result<Option<Obj>> {
    let (plural, ns) = match text(binding, "/roleRef/kind") {
        "ClusterRole" => ("clusterroles", ""),
        _ => ("roles", namespace(binding)),
    };
    let kind = format!("{RBAC}/{plural}").into();
    let key = crate::store::Key::new(&kind, ns, text(binding, "/roleRef/name"));
    api.store.get(&key).await
}

fn is_subject(subject: &Value, user: &User) -> bool {
    let name = text(subject, "/name");
    match text(subject, "/kind") {
        "User" => name == user.name,
        "Group" => user.groups.iter().any(|g| g == name),
        "ServiceAccount" => {
            let full = format!(
                "system:serviceaccount:{}:{name}",
                text(subject, "/namespace")
            );
            full == user.name
        }
        _ => false,
    }
}

fn covers(rule: &Value, ask: &Ask) -> bool {
    let has = |field: &str, wanted: &str| {
        strings(rule.get(field))
            .iter()
            .any(|entry| *entry == "*" || *entry == wanted)
    };
    if !has("verbs", &ask.verb) {
        return false;
    }
    if let Some(path) = &ask.path {
        return strings(rule.get("nonResourceURLs")).iter().any(|url| {
            *url == "*"
                || url == path
                || url
                    .strip_suffix('*')
                    .is_some_and(|root| path.starts_with(root))
        });
    }
    let qualified = ask.qualified();
    let resource = strings(rule.get("resources")).iter().any(|entry| {
        *entry == "*"
            || *entry == qualified
            || (!ask.subresource.is_empty() && *entry == format!("*/{}", ask.subresource))
    });
    let names = strings(rule.get("resourceNames"));
    has("apiGroups", &ask.group)
        && resource
        && (names.is_empty() || names.contains(&ask.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(verb: &str, group: &str, resource: &str, sub: &str, name: &str) -> Ask {
        Ask {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            ns: "default".into(),
            name: name.into(),
            path: None,
        }
    }

    #[test]
    fn rules_cover_what_they_name() {
        let read = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        assert!(covers(&read, &ask("get", "", "pods", "", "web")));
        assert!(!covers(&read, &ask("get", "", "pods", "log", "web")));
        assert!(!covers(&read, &ask("delete", "", "pods", "", "web")));
        assert!(!covers(&read, &ask("get", "apps", "pods", "", "web")));
        let one = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["secrets"],
            "resourceNames": ["ca"]});
        assert!(covers(&one, &ask("get", "", "secrets", "", "ca")));
        assert!(!covers(&one, &ask("get", "", "secrets", "", "other")));
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/logs/*"]});
        assert!(covers(&paths, &Ask::path("get", "/logs/a")));
        assert!(!covers(&paths, &Ask::path("get", "/metrics")));
    }
}
