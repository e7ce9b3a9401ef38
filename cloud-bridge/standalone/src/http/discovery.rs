//! Discovery: which groups, versions and resources there are, aggregated and in the older
//! lists.

use super::GIT_VERSION;
use super::answer::{Answer, bytes, json_with};
use crate::error::ApiError;
use crate::registry::{Resource, Snapshot};
use http::StatusCode;
use http::header::{HeaderValue, VARY};
use serde_json::{Value, json};

/// Aggregated discovery of the core group, or of all others.
pub fn aggregated(now: &Snapshot, version: &str, core: bool) -> Answer {
    let items: Vec<Value> = now
        .groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        now.in_version(&group, version).map(|r| entry(r)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let media = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    vary(bytes(StatusCode::OK, media, list.to_string()))
}

fn vary(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// A resource's subresources: (name, group, version, kind, verbs).
fn subresources(r: &Resource) -> Vec<(&str, &str, &str, &str, &[&str])> {
    let status = r.status.then_some((
        "status",
        "",
        "",
        r.kind.as_str(),
        &["get", "patch", "update"][..],
    ));
    let others = r.subresources.iter().map(|s| {
        let (group, version, kind) = s.gvk;
        let kind = if kind.is_empty() { &r.kind } else { kind };
        (s.name, group, version, kind, s.verbs)
    });
    status.into_iter().chain(others).collect()
}

fn entry(r: &Resource) -> Value {
    let mut entry = json!({
        "resource": r.plural,
        "responseKind": {"group": "", "version": "", "kind": r.kind},
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular,
        "verbs": r.verbs,
    });
    if !r.short_names.is_empty() {
        entry["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        entry["categories"] = json!(r.categories);
    }
    let subresources: Vec<Value> = subresources(r)
        .into_iter()
        .map(|(name, group, version, kind, verbs)| {
            json!({"subresource": name, "verbs": verbs,
                "responseKind": {"group": group, "version": version, "kind": kind}})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

/// `GET /api` without aggregation.
pub fn core_versions(server: &str) -> Answer {
    vary(json_with(
        StatusCode::OK,
        &json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]}),
    ))
}

fn group_of(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or(Value::Null);
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

/// `GET /apis` without aggregation.
pub fn groups(now: &Snapshot) -> Answer {
    let groups: Vec<Value> = now
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_of(group, versions))
        .collect();
    vary(json_with(
        StatusCode::OK,
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    ))
}

/// `GET /apis/{group}`
pub fn group(now: &Snapshot, name: &str) -> Option<Answer> {
    let groups = now.groups();
    let (group, versions) = groups.iter().find(|(g, _)| g == name && !g.is_empty())?;
    let mut answer = group_of(group, versions);
    answer["kind"] = json!("APIGroup");
    answer["apiVersion"] = json!("v1");
    Some(json_with(StatusCode::OK, &answer))
}

/// `GET /api/v1`, `GET /apis/{group}/{version}`
pub fn resources(now: &Snapshot, group: &str, version: &str) -> Result<Answer, ApiError> {
    let mut list = Vec::new();
    for r in now.in_version(group, version) {
        let mut entry = json!({
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": r.verbs,
        });
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        list.push(entry);
        for (name, group, version, kind, verbs) in subresources(r) {
            let mut entry = json!({
                "name": format!("{}/{name}", r.plural),
                "singularName": "",
                "namespaced": r.namespaced,
                "kind": kind,
                "verbs": verbs,
            });
            if !group.is_empty() {
                entry["group"] = json!(group);
            }
            if !version.is_empty() {
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    Ok(json_with(
        StatusCode::OK,
        &json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": group_version, "resources": list}),
    ))
}

pub fn version() -> Answer {
    json_with(
        StatusCode::OK,
        &json!({
            "major": "1",
            "minor": "33",
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }),
        }),
    )
}
