//! POST: a new object, filled in, checked and stored.

use super::update::{check_fields, finish, validate};
use super::{Api, Body, Target, WriteOptions, Written, names};
use crate::error::{ApiError, Result, Subject};
use crate::meta::{is_deleting, metadata, text};
use crate::registry::{CRDS, NAMESPACES, NODES, Resource, establish};
use crate::schema::strict::Parsed;
use crate::store::{Change, Key};
use crate::time;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// How often another random name is tried for `generateName`.
const NAME_ATTEMPTS: usize = 8;

/// `metadata` that only the server sets.
const SERVER_FIELDS: &[&str] = &[
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "managedFields",
    "resourceVersion",
];

impl Api {
    pub async fn create(
        &self,
        resource: &Arc<Resource>,
        ns: &str,
        body: &Body,
        options: &WriteOptions,
    ) -> Result<Written> {
        self.create_parsed(resource, ns, body.parse()?, options)
            .await
    }

    pub(crate) async fn create_parsed(
        &self,
        resource: &Arc<Resource>,
        ns: &str,
        mut parsed: Parsed,
        options: &WriteOptions,
    ) -> Result<Written> {
        let warnings = check_fields(resource, &mut parsed, options.validation)?;
        let mut object = parsed.value;
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        prepare_metadata(&mut object, resource, ns)?;
        self.admit(resource, ns, text(&object, "/metadata/name"))
            .await?;
        let prefix = match text(&object, "/metadata/name") {
            "" => text(&object, "/metadata/generateName").to_owned(),
            _ => String::new(),
        };
        let attempts = if prefix.is_empty() { 1 } else { NAME_ATTEMPTS };
        for attempt in 1..=attempts {
            if !prefix.is_empty() {
                let kept: String = prefix.chars().take(58).collect();
                metadata(&mut object)
                    .insert("name".into(), json!(format!("{kept}{}", names::suffix())));
            }
            match self.store_new(resource, ns, &object, options).await {
                Err(error) if error.reason == "AlreadyExists" && attempt < attempts => {}
                Err(error) => return Err(error),
                Ok(object) => {
                    return Ok(Written {
                        object,
                        created: true,
                        warnings,
                    });
                }
            }
        }
        Err(ApiError::internal("no free name found"))
    }

    async fn store_new(
        &self,
        resource: &Arc<Resource>,
        ns: &str,
        object: &Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        let object = self.new_object(resource, object.clone(), options)?;
        let name = text(&object, "/metadata/name").to_owned();
        let target = Target::main(resource, ns, &name);
        let outcome = self
            .change(&target.key(), options.dry_run, |old| match old {
                Some(_) => Err(ApiError::already_exists(target.subject())),
                None => Ok(Change::Put(object.clone())),
            })
            .await?;
        let stored = outcome.object.expect("a put has an object");
        let api_version = resource.api_version();
        Ok(resource
            .convert
            .to_served(&stored.value, &api_version)
            .into_owned())
    }

    /// From a checked body (in its served form) to what is stored for a new object.
    pub(super) fn new_object(
        &self,
        resource: &Arc<Resource>,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        if resource.status && &*resource.storage != NODES {
            // Nodes register with their status; everyone else reports it later.
            if let Some(fields) = object.as_object_mut() {
                fields.remove("status");
            }
        }
        if let Some(schema) = resource.custom.as_ref().and_then(|c| c.schema.as_ref()) {
            schema.default(&mut object);
        }
        let mut object = resource.convert.to_stored(object);
        (resource.hooks.default)(&mut object);
        (resource.hooks.create)(&mut object);
        validate(resource, &object, None)?;
        let counts = resource.hooks.generation || resource.is_custom();
        let fields = metadata(&mut object);
        fields.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
        fields.insert("creationTimestamp".into(), json!(time::now()));
        if counts {
            fields.insert("generation".into(), json!(1));
        }
        if &*resource.storage == CRDS {
            establish(&mut object, &self.now());
        }
        Ok(finish(resource, None, object, super::Part::Main, options))
    }

    /// What a new object goes into must be there and not on its way out: its namespace, and
    /// the definition of its kind.
    pub(super) async fn admit(&self, resource: &Resource, ns: &str, name: &str) -> Result<()> {
        if let Some(custom) = &resource.custom {
            let key = Key::new(&CRDS.into(), "", &custom.definition);
            let definition = self.store.get(&key).await?;
            if definition.is_none_or(|d| is_deleting(&d.value)) {
                let mut error = ApiError::method_not_allowed();
                error.message =
                    "create not allowed while custom resource definition is terminating".into();
                return Err(error);
            }
        }
        if !resource.namespaced {
            return Ok(());
        }
        let key = Key::new(&NAMESPACES.into(), "", ns);
        let Some(namespace) = self.store.get(&key).await? else {
            return Err(ApiError::not_found(Subject {
                group: "",
                plural: "namespaces",
                name: ns,
            }));
        };
        if !is_deleting(&namespace.value) {
            return Ok(());
        }
        let subject = Subject {
            group: &resource.group,
            plural: &resource.plural,
            name,
        };
        let why = format!(
            "unable to create new content in namespace {ns} because it is being terminated"
        );
        let mut error = ApiError::forbidden(subject, &why);
        error.code = StatusCode::FORBIDDEN;
        if let Some(details) = error.details.as_mut() {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {ns} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        Err(error)
    }
}

/// Puts the namespace of the path into the object and drops what clients cannot set.
pub(super) fn prepare_metadata(object: &mut Value, resource: &Resource, ns: &str) -> Result<()> {
    let sent = text(object, "/metadata/namespace").to_owned();
    let fields = metadata(object);
    if resource.namespaced {
        if !sent.is_empty() && sent != ns {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        fields.insert("namespace".into(), json!(ns));
    } else {
        fields.remove("namespace");
    }
    for field in SERVER_FIELDS {
        fields.remove(*field);
    }
    Ok(())
}
