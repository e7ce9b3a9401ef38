//! Answers: status, headers, bytes.

use super::accept::Form;
use crate::error::ApiError;
use crate::ops::Listed;
use crate::registry::Resource;
use crate::table::{Columns, Include, partial};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::convert::Infallible;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Response<Body>;

pub fn bytes(status: StatusCode, media: &'static str, content: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(content.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

pub fn json_with(status: StatusCode, value: &Value) -> Answer {
    bytes(status, "application/json", value.to_string())
}

pub fn text(status: StatusCode, content: &'static str) -> Answer {
    bytes(status, "text/plain; charset=utf-8", content)
}

pub fn error(error: &ApiError) -> Answer {
    let mut answer = json_with(error.code, &error.to_status());
    if let Some(seconds) = error
        .details
        .as_ref()
        .and_then(|d| d["retryAfterSeconds"].as_u64())
    {
        answer
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// As many `Warning` headers as a client wants to read.
const MOST_WARNINGS: usize = 20;

pub fn warn(answer: &mut Answer, warnings: &[String]) {
    const WARNING: HeaderName = HeaderName::from_static("warning");
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                let escape = matches!(c, '"' | '\\').then_some('\\');
                escape.into_iter().chain([c])
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// One object in the form that was negotiated.
pub fn object(resource: &Resource, form: Form, include: Include, object: &Value) -> Value {
    match form {
        Form::Plain => object.clone(),
        Form::Metadata(version) => partial(object, version),
        Form::Table(version) => {
            let columns = Columns::of(resource);
            let rows = vec![columns.row(object, include, version)];
            let rev = object["metadata"]["resourceVersion"].clone();
            table(version, json!({"resourceVersion": rev}), &columns, rows)
        }
    }
}

fn table(version: &str, metadata: Value, columns: &Columns, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns.definitions(),
        "rows": rows,
    })
}

/// A page of a list in the form that was negotiated.
pub fn list(resource: &Resource, form: Form, include: Include, listed: &Listed) -> Answer {
    let api_version = resource.api_version();
    let mut metadata = json!({"resourceVersion": listed.rev.to_string()});
    if let Some(next) = &listed.next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = listed.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let served = listed
        .objects
        .iter()
        .map(|o| resource.convert.to_served(&o.value, &api_version));
    match form {
        Form::Table(version) => {
            let columns = Columns::of(resource);
            let rows = served.map(|o| columns.row(&o, include, version)).collect();
            json_with(StatusCode::OK, &table(version, metadata, &columns, rows))
        }
        Form::Metadata(version) => {
            let items: Vec<Value> = served.map(|o| partial(&o, version)).collect();
            let list = json!({"kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata, "items": items});
            json_with(StatusCode::OK, &list)
        }
        Form::Plain => {
            // Written piece by piece: a list can be large, and none of it is copied twice.
            let mut out = format!(
                "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
                json!(resource.list_kind),
                json!(api_version)
            );
            for (i, object) in served.enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&object.to_string());
            }
            out.push_str("]}\n");
            bytes(StatusCode::OK, "application/json", out)
        }
    }
}
