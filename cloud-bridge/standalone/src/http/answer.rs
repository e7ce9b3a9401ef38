//! Answers: status, headers, bytes.

use super::accept::Form;
use crate::error::ApiError;
use crate::ops::Listed;
use crate::registry::Resource;
use crate::table::{Columns, Include, partial};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;

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

/// How much of a list is written at once.
const PIECE: usize = 64 * 1024;

/// A page of a list in the form that was negotiated. It is written while it is sent, piece by
/// piece: a list can be large, and none of it is in memory twice.
pub fn list(resource: &Arc<Resource>, form: Form, include: Include, listed: Listed) -> Answer {
    let resource = resource.clone();
    let api_version = resource.api_version();
    let mut metadata = json!({"resourceVersion": listed.rev.to_string()});
    if let Some(next) = &listed.next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = listed.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let columns = matches!(form, Form::Table(_)).then(|| Columns::of(&resource));
    let (head, items) = match form {
        Form::Table(version) => (
            json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "columnDefinitions": columns.as_ref().map(Columns::definitions)}),
            ",\"rows\":[",
        ),
        Form::Metadata(version) => (
            json!({"kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}),
            ",\"items\":[",
        ),
        Form::Plain => (
            json!({"kind": resource.list_kind, "apiVersion": api_version, "metadata": metadata}),
            ",\"items\":[",
        ),
    };
    // The list goes in before the last brace.
    let mut piece = head.to_string();
    piece.truncate(piece.len() - 1);
    piece.push_str(items);
    let mut objects = listed.objects.into_iter().peekable();
    let mut over = false;
    let pieces = std::iter::from_fn(move || {
        while !over && piece.len() < PIECE {
            let Some(object) = objects.next() else {
                piece.push_str("]}\n");
                over = true;
                break;
            };
            match (form, &columns) {
                (Form::Table(version), Some(columns)) => {
                    let object = object.unpack().value;
                    let served = resource.convert.to_served(&object, &api_version);
                    piece.push_str(&columns.row(&served, include, version).to_string());
                }
                (Form::Metadata(version), _) => {
                    piece.push_str(&partial(&object.unpack().value, version).to_string());
                }
                _ => piece.push_str(&resource.convert.to_served_text(&object, &api_version)),
            }
            if objects.peek().is_some() {
                piece.push(',');
            }
        }
        (!piece.is_empty()).then(|| Ok(Frame::data(Bytes::from(std::mem::take(&mut piece)))))
    });
    let mut answer = Response::new(StreamBody::new(stream::iter(pieces)).boxed_unsync());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
