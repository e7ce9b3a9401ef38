//! `/openapi/v3`: an index, and one document per group version.

use super::answer::{Answer, bytes, json_with};
use crate::error::ApiError;
use crate::ops::Api;
use crate::registry::Snapshot;
use crate::schema::openapi::{self, Row};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn rows(now: &Snapshot, group: &str, version: &str) -> Vec<Row> {
    now.in_version(group, version)
        .map(|r| {
            let mut subresources: Vec<String> =
                r.subresources.iter().map(|s| s.name.to_owned()).collect();
            if r.status {
                subresources.insert(0, "status".into());
            }
            Row {
                group: r.group.clone(),
                version: r.version.clone(),
                kind: r.kind.clone(),
                plural: r.plural.clone(),
                namespaced: r.namespaced,
                subresources,
                custom: r.custom.as_ref().map(|c| c.raw_schema.clone()),
            }
        })
        .collect()
}

pub fn index(now: &Snapshot) -> Answer {
    let mut paths = Map::new();
    for (group, versions) in now.groups() {
        for version in versions {
            let rows = rows(now, &group, &version);
            let Some(first) = rows.first() else { continue };
            let path = openapi::path_of(first);
            let url = format!("/openapi/v3/{path}?hash={}", openapi::fingerprint(&rows));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json_with(StatusCode::OK, &json!({"paths": Value::Object(paths)}))
}

/// Building a document takes milliseconds of computing, so it is done off the I/O threads.
pub async fn document(api: Arc<Api>, group: &str, version: &str) -> Result<Answer, ApiError> {
    let rows = rows(&api.now(), group, version);
    if rows.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let built = tokio::task::spawn_blocking(move || api.documents.get(&rows))
        .await
        .map_err(ApiError::internal)?;
    Ok(bytes(StatusCode::OK, "application/json", built))
}

/// `/openapi/v2` without a single definition, in the protobuf that kubectl asks for, and
/// nothing else. kubectl comes here for kinds that no v3 document has: from this it learns
/// that there is no schema and goes on to say "no matches for kind"; from a 404 it would say
/// that validation failed. kubectl before 1.29 comes here first, and leaves validation to
/// the server. A JSON answer would be an error to them all.
pub fn version_2(accept: &str) -> Result<Answer, ApiError> {
    const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    // Written otherwise than it is asked for: Go's parser refuses the @.
    const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    /// Document{swagger: "2.0", info: {title: "Kubernetes", version: "v1.33.0"}, paths: {}}
    const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.33.0\x42\x00";
    if !accept.contains(ASKED) {
        return Err(ApiError::no_such_resource());
    }
    Ok(bytes(StatusCode::OK, MEDIA, DOCUMENT))
}
