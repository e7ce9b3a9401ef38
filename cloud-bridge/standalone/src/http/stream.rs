//! A watch as the body of an answer: one JSON object per line.

use super::accept::Form;
use super::answer::{Answer, Body};
use crate::ops::watch::{Line, Watch, bookmark};
use crate::registry::Resource;
use crate::table::{Columns, Include, partial};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::sync::Arc;

/// Turns lines of a watch into bytes.
struct Writer {
    resource: Arc<Resource>,
    api_version: String,
    form: Form,
    include: Include,
    columns: Option<Columns>,
    /// Column definitions come with the first Table only.
    defined: bool,
}

impl Writer {
    fn table(&mut self, version: &str, rev: u64, rows: Value) -> Value {
        let definitions = match (&self.columns, self.defined) {
            (Some(columns), false) => columns.definitions(),
            _ => Value::Null,
        };
        self.defined = true;
        json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": {"resourceVersion": rev.to_string()},
            "columnDefinitions": definitions, "rows": rows})
    }

    fn write(&mut self, line: &Line, out: &mut Vec<u8>) {
        let (word, object) = match line {
            Line::Object(word, object) => {
                let resource = self.resource.clone();
                if self.form == Form::Plain {
                    let served = resource.convert.to_served_text(object, &self.api_version);
                    out.extend_from_slice(
                        format!("{{\"type\":\"{word}\",\"object\":{served}}}\n").as_bytes(),
                    );
                    return;
                }
                let stored = object.unpack().value;
                let served = resource.convert.to_served(&stored, &self.api_version);
                let shown = match self.form {
                    Form::Plain => served.into_owned(),
                    Form::Metadata(version) => partial(&served, version),
                    Form::Table(version) => {
                        let row = self
                            .columns
                            .as_ref()
                            .map(|c| c.row(&served, self.include, version));
                        self.table(version, object.rev, json!([row]))
                    }
                };
                (*word, shown)
            }
            Line::Bookmark(rev, initial_end) => {
                let plain = bookmark(&self.resource, *rev, *initial_end);
                let shown = match self.form {
                    Form::Plain => plain,
                    Form::Metadata(version) => partial(&plain, version),
                    Form::Table(version) => {
                        let row = json!([{"cells": [], "object": partial(&plain, version)}]);
                        self.table(version, *rev, row)
                    }
                };
                ("BOOKMARK", shown)
            }
            Line::Error(status) => ("ERROR", status.clone()),
        };
        out.extend_from_slice(
            json!({"type": word, "object": object})
                .to_string()
                .as_bytes(),
        );
        out.push(b'\n');
    }
}

pub fn answer(watch: Watch, resource: Arc<Resource>, form: Form, include: Include) -> Answer {
    let writer = Writer {
        api_version: resource.api_version(),
        columns: matches!(form, Form::Table(_)).then(|| Columns::of(&resource)),
        resource,
        form,
        include,
        defined: false,
    };
    let frames = stream::unfold((watch, writer), |(mut watch, mut writer)| async move {
        let lines = watch.next().await?;
        let mut out = Vec::new();
        for line in &lines {
            writer.write(line, &mut out);
        }
        let frame = Frame::data(Bytes::from(out));
        Some((Ok(frame), (watch, writer)))
    });
    let body: Body = StreamBody::new(frames).boxed_unsync();
    let mut answer = http::Response::new(body);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
