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
    Ok(bytes(StatusCode::OK, "application/json", built.to_vec()))
}
