//! What the API refuses, in the shape and the words of a Kubernetes `Status`, so that
//! kubectl and client libraries show what they show against any other API server.

use crate::schema::{Cause, invalid_message};
use http::StatusCode;
use serde_json::{Value, json};

/// A refusal. Becomes a `Status` object with `status: Failure`.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub code: StatusCode,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
}

pub type Result<T> = std::result::Result<T, ApiError>;

/// Names one object in an error: `pods "web"`, `devices.devices.kubeedge.io "t1"`.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub name: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    fn details(&self) -> Value {
        let mut details = json!({"name": self.name, "kind": self.plural});
        if !self.group.is_empty() {
            details["group"] = json!(self.group);
        }
        details
    }
}

impl ApiError {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, subject: Subject<'_>) -> ApiError {
        self.details = Some(subject.details());
        self
    }

    pub fn not_found(subject: Subject<'_>) -> ApiError {
        let message = format!("{} {:?} not found", subject.qualified(), subject.name);
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message).about(subject)
    }

    /// A resource or subresource that does not exist in a group version that does.
    pub fn no_such_resource() -> ApiError {
        let mut error = ApiError::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(json!({}));
        error
    }

    pub fn already_exists(subject: Subject<'_>) -> ApiError {
        let message = format!("{} {:?} already exists", subject.qualified(), subject.name);
        ApiError::new(StatusCode::CONFLICT, "AlreadyExists", message).about(subject)
    }

    pub fn conflict(subject: Subject<'_>, why: &str) -> ApiError {
        let message = format!(
            "Operation cannot be fulfilled on {} {:?}: {why}",
            subject.qualified(),
            subject.name
        );
        ApiError::new(StatusCode::CONFLICT, "Conflict", message).about(subject)
    }

    pub fn stale(subject: Subject<'_>) -> ApiError {
        ApiError::conflict(
            subject,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized() -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(subject: Subject<'_>, why: &str) -> ApiError {
        let name = match subject.name {
            "" => String::new(),
            name => format!(" {name:?}"),
        };
        let message = format!("{}{name} is forbidden: {why}", subject.qualified());
        ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message).about(subject)
    }

    /// 422 with its causes; `kind` is the bare kind.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> ApiError {
        let qualified = match group {
            "" => kind.to_owned(),
            group => format!("{kind}.{group}"),
        };
        let mut error = ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            invalid_message(&qualified, name, causes),
        );
        let list: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason.as_str(), "message": c.message, "field": c.field}))
            .collect();
        let mut details = json!({"name": name, "kind": kind, "causes": list});
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        error.details = Some(details);
        error
    }

    pub fn method_not_allowed() -> ApiError {
        let mut error = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(json!({}));
        error
    }

    pub fn not_acceptable(accepted: &[&str]) -> ApiError {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(got: &str, accepted: &[&str]) -> ApiError {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {} (got {got})",
            accepted.join(", ")
        );
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    pub fn too_large(limit_bytes: usize) -> ApiError {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit_bytes}"),
        )
    }

    /// 410 for a resourceVersion that is no longer, or was never, in the event history.
    pub fn expired(asked: u64, oldest: u64) -> ApiError {
        ApiError::new(
            StatusCode::GONE,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    pub fn timeout(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
    }

    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_named_with_its_group() {
        let error = ApiError::not_found(Subject {
            group: "devices.kubeedge.io",
            plural: "devices",
            name: "t1",
        });
        assert_eq!(
            error.message,
            r#"devices.devices.kubeedge.io "t1" not found"#
        );
        assert_eq!(
            error.to_status()["details"],
            json!({"name": "t1", "kind": "devices", "group": "devices.kubeedge.io"})
        );
    }
}
