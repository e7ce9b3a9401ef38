//! Requests on resources: from method, path and query to the verb, its permission, and its
//! answer.

use super::accept::{Form, negotiate};
use super::answer::{self, Answer};
use super::path::ResourcePath;
use super::query::Query;
use super::stream;
use crate::auth::{Ask, User, allowed};
use crate::error::{ApiError, Result};
use crate::meta::uid;
use crate::ops::watch::{WatchOptions, watch};
use crate::ops::{
    Api, Body, DeleteOptions, Deleted, ListOptions, Part, Propagation, Target, WriteOptions,
    Written, scale,
};
use crate::registry::Resource;
use crate::schema::strict::FieldValidation;
use crate::table::Include;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// A request whose body is read.
pub struct Request {
    pub method: Method,
    pub path: ResourcePath,
    pub query: Query,
    pub accept: Option<String>,
    pub agent: String,
    pub user: User,
    pub body: Body,
}

/// The Kubernetes verb of a request.
fn verb(request: &Request) -> Result<&'static str> {
    let named = request.path.name.is_some();
    let watching = request.query.flag("watch");
    Ok(match (&request.method, named) {
        (&Method::GET | &Method::HEAD, true) => "get",
        (&Method::GET | &Method::HEAD, false) if watching => "watch",
        (&Method::GET | &Method::HEAD, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err(ApiError::method_not_allowed()),
    })
}

impl Request {
    fn write_options(&self) -> Result<WriteOptions> {
        let word = self.query.get("fieldValidation").unwrap_or("");
        let validation = FieldValidation::parse(word).ok_or_else(|| {
            ApiError::bad_request(format!(
                "fieldValidation {word:?} is not one of Ignore, Warn, Strict"
            ))
        })?;
        let given = self.query.get("fieldManager");
        let from_agent = self.agent.split('/').next().unwrap_or("");
        let manager = given
            .or(Some(from_agent))
            .filter(|m| !m.is_empty())
            .unwrap_or("unknown");
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            manager: manager.chars().take(128).collect(),
            manager_given: given.is_some(),
            validation,
            force: self.query.flag("force"),
            applied: false,
        })
    }

    fn dry_run(&self) -> Result<bool> {
        match self.query.all("dryRun").find(|v| !v.is_empty()) {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!(
                "dryRun {other:?} is not supported: allowed is All"
            ))),
        }
    }

    fn delete_options(&self) -> Result<DeleteOptions> {
        let mut options = DeleteOptions::parse(&self.body.parse_optional()?)?;
        options.dry_run |= self.dry_run()?;
        if let Some(seconds) = self.query.number("gracePeriodSeconds")? {
            options.grace_seconds = Some(seconds);
        }
        if let Some(word) = self.query.get("propagationPolicy") {
            options.propagation = Some(Propagation::parse(word)?);
        }
        Ok(options)
    }

    fn form(&self) -> Result<Form> {
        negotiate(self.accept.as_deref())
    }

    fn include(&self) -> Include {
        Include::parse(self.query.get("includeObject"))
    }
}

/// Answers a request on a resource.
pub async fn handle(api: &Arc<Api>, request: Request) -> Result<Answer> {
    let path = &request.path;
    let verb = verb(&request)?;
    let ask = Ask {
        verb: verb.to_owned(),
        group: path.group.clone(),
        resource: path.plural.clone(),
        subresource: path.subresource.clone().unwrap_or_default(),
        ns: path.namespace.clone().unwrap_or_default(),
        name: path.name.clone().unwrap_or_default(),
        path: None,
    };
    if !allowed(api, &request.user, &ask).await? {
        return Err(ask.refused(&request.user));
    }
    let now = api.now();
    let Some(resource) = now.find(&path.group, &path.version, &path.plural).cloned() else {
        return Err(ApiError::no_such_resource());
    };
    // A namespaced path for a cluster's object, and a name without its namespace, are no
    // paths of this API.
    let misplaced = path.namespace.is_some() != resource.namespaced
        && (path.namespace.is_some() || path.name.is_some() || verb == "create");
    if misplaced && !is_review(&resource) {
        return Err(match path.namespace.is_none() && path.name.is_none() {
            true => ApiError::method_not_allowed(),
            false => ApiError::no_such_resource(),
        });
    }
    if is_review(&resource) {
        return review(api, &resource, verb, request).await;
    }
    if let Some(subresource) = path.subresource.clone() {
        return on_subresource(api, &resource, &subresource, verb, request).await;
    }
    if !resource.allows(verb) {
        return Err(ApiError::method_not_allowed());
    }
    let ns = path.namespace.clone();
    let target = Target::main(
        &resource,
        ns.as_deref().unwrap_or(""),
        path.name.as_deref().unwrap_or(""),
    );
    match verb {
        "get" => {
            let object = api.get(target).await?;
            shown(&resource, &request, &object.value)
        }
        "list" => {
            let form = request.form()?;
            let options = ListOptions::parse(&request.query, &resource)?;
            let listed = api.list(&resource, ns.as_deref(), &options).await?;
            Ok(answer::list(&resource, form, request.include(), listed))
        }
        "watch" => {
            let (form, include) = (request.form()?, request.include());
            let options = WatchOptions::parse(&request.query, &resource)?;
            let started = watch(api.clone(), resource.clone(), ns, options).await?;
            Ok(stream::answer(started, resource, form, include))
        }
        "create" if path.name.is_some() => Err(ApiError::method_not_allowed()),
        "create" => {
            let options = request.write_options()?;
            let form = request.form()?;
            let written = api
                .create(&resource, target.ns, &request.body, &options)
                .await?;
            Ok(wrote(&resource, form, &request, &written))
        }
        "update" | "patch" => write(api, target, verb, &request).await,
        "delete" => {
            let options = request.delete_options()?;
            let deleted = api.delete(target, &options).await?;
            Ok(deletion(&resource, &deleted))
        }
        _ => {
            let options = request.delete_options()?;
            let list = ListOptions::parse(&request.query, &resource)?;
            let objects = api
                .delete_collection(&resource, ns.as_deref(), &list, &options)
                .await?;
            let (_, rev) = api.store.list("", None, None).await?;
            let listed = crate::ops::Listed {
                objects,
                rev,
                next: None,
                remaining: None,
            };
            Ok(answer::list(&resource, Form::Plain, Include::None, listed))
        }
    }
}

fn is_review(resource: &Resource) -> bool {
    resource.verbs == ["create"] && !resource.is_custom()
}

async fn review(
    api: &Arc<Api>,
    resource: &Resource,
    verb: &str,
    request: Request,
) -> Result<Answer> {
    if verb != "create" || request.path.name.is_some() {
        return Err(ApiError::method_not_allowed());
    }
    let mut body = request.body.parse()?.value;
    if let Some(fields) = body.as_object_mut() {
        fields.insert("kind".into(), json!(resource.kind));
        fields.insert("apiVersion".into(), json!(resource.api_version()));
    }
    let answered = api.review(&resource.kind, &request.user, body).await?;
    Ok(answer::json_with(StatusCode::CREATED, &answered))
}

fn shown(resource: &Resource, request: &Request, stored: &Value) -> Result<Answer> {
    let form = request.form()?;
    let api_version = resource.api_version();
    let served = resource.convert.to_served(stored, &api_version);
    let shown = answer::object(resource, form, request.include(), &served);
    Ok(answer::json_with(StatusCode::OK, &shown))
}

fn wrote(resource: &Resource, form: Form, request: &Request, written: &Written) -> Answer {
    let status = match written.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let shown = answer::object(resource, form, request.include(), &written.object);
    let mut answer = answer::json_with(status, &shown);
    answer::warn(&mut answer, &written.warnings);
    answer
}

async fn write(api: &Api, target: Target<'_>, verb: &str, request: &Request) -> Result<Answer> {
    let options = request.write_options()?;
    let form = request.form()?;
    let written = match verb {
        "update" => api.replace(target, &request.body, &options).await?,
        _ => api.patch(target, &request.body, &options).await?,
    };
    Ok(wrote(target.resource, form, request, &written))
}

fn deletion(resource: &Resource, deleted: &Deleted) -> Answer {
    match deleted {
        Deleted::Waiting(object) => {
            let api_version = resource.api_version();
            let served = resource.convert.to_served(&object.value, &api_version);
            answer::json_with(StatusCode::OK, &served)
        }
        Deleted::Gone(object) => {
            let mut details = json!({"name": object.value["metadata"]["name"],
                "kind": resource.plural, "uid": uid(&object.value)});
            if !resource.group.is_empty() {
                details["group"] = json!(resource.group);
            }
            answer::json_with(StatusCode::OK, &success(details))
        }
    }
}

fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details})
}

async fn on_subresource(
    api: &Arc<Api>,
    resource: &Arc<Resource>,
    subresource: &str,
    verb: &str,
    request: Request,
) -> Result<Answer> {
    let path = &request.path;
    let mut target = Target::main(
        resource,
        path.namespace.as_deref().unwrap_or(""),
        path.name.as_deref().unwrap_or(""),
    );
    if subresource == "status" && resource.status {
        target.part = Part::Status;
        return match verb {
            "get" => shown(resource, &request, &api.get(target).await?.value),
            "update" | "patch" => write(api, target, verb, &request).await,
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    let Some(known) = resource.subresources.iter().find(|s| s.name == subresource) else {
        return Err(ApiError::no_such_resource());
    };
    if !known.verbs.contains(&verb) {
        return Err(ApiError::method_not_allowed());
    }
    let options = request.write_options()?;
    match (subresource, verb) {
        ("scale", "get") => {
            let object = api.get(target).await?;
            let scale = scale::scale_of(target, &object.value)?;
            Ok(answer::json_with(StatusCode::OK, &scale))
        }
        ("scale", _) => {
            let scale = api
                .write_scale(target, &request.body, verb == "patch", &options)
                .await?;
            Ok(answer::json_with(StatusCode::OK, &scale))
        }
        ("finalize", _) => {
            target.part = Part::Finalize;
            write(api, target, verb, &request).await
        }
        ("ephemeralcontainers", "get") => shown(resource, &request, &api.get(target).await?.value),
        ("ephemeralcontainers", _) => write(api, target, verb, &request).await,
        ("binding", _) => {
            let binding = request.body.parse()?.value;
            api.bind(target, &binding, options.dry_run).await?;
            Ok(answer::json_with(StatusCode::CREATED, &success(json!({}))))
        }
        ("eviction", _) => {
            let eviction = request.body.parse()?.value;
            api.evict(target, &eviction, options.dry_run).await?;
            Ok(answer::json_with(StatusCode::CREATED, &success(json!({}))))
        }
        ("token", _) => {
            let account = api.get(target).await?;
            let asked = match request.body.parse_optional()? {
                Value::Null => json!({}),
                value if value.is_object() => value,
                _ => return Err(ApiError::bad_request("the body must be a TokenRequest")),
            };
            let answered = api.tokens.request(&account, asked)?;
            Ok(answer::json_with(StatusCode::CREATED, &answered))
        }
        _ => Err(ApiError::no_such_resource()),
    }
}
