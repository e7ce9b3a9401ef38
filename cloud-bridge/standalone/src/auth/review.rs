//! The reviews of `authentication.k8s.io` and `authorization.k8s.io`: questions about users
//! that are answered and not stored.

use super::allow::rules;
use super::{Ask, User, allowed};
use crate::error::{ApiError, Result};
use crate::meta::{strings, text};
use crate::ops::Api;
use serde_json::{Value, json};

impl Api {
    /// Answers a review: the question with its status.
    pub async fn review(&self, kind: &str, user: &User, mut review: Value) -> Result<Value> {
        if !review.is_object() {
            return Err(ApiError::bad_request(format!("the body must be a {kind}")));
        }
        let spec = review["spec"].clone();
        review["status"] = match kind {
            "SelfSubjectReview" => json!({"userInfo": user.info()}),
            "TokenReview" => self.review_token(&spec).await?,
            "SelfSubjectAccessReview" => self.review_access(user, &spec).await?,
            "SubjectAccessReview" => {
                let groups = strings(spec.get("groups"));
                let subject = User::authenticated(
                    text(&spec, "/user").to_owned(),
                    text(&spec, "/uid").to_owned(),
                    groups.into_iter().map(ToOwned::to_owned).collect(),
                );
                self.review_access(&subject, &spec).await?
            }
            "SelfSubjectRulesReview" => self.review_rules(user, text(&spec, "/namespace")).await?,
            _ => return Err(ApiError::no_such_resource()),
        };
        if review["metadata"].is_null() {
            review["metadata"] = json!({"creationTimestamp": null});
        }
        Ok(review)
    }

    async fn review_token(&self, spec: &Value) -> Result<Value> {
        Ok(
            match self
                .tokens
                .verify(&self.store, text(spec, "/token"))
                .await?
            {
                Some(user) => json!({"authenticated": true, "user": user.info(),
                    "audiences": spec.get("audiences").cloned().unwrap_or(json!([]))}),
                None => json!({"authenticated": false, "user": {},
                    "error": "the token is not one of this server's, or no longer good"}),
            },
        )
    }

    async fn review_access(&self, user: &User, spec: &Value) -> Result<Value> {
        let ask = if let Some(attributes) = spec.get("resourceAttributes").filter(|a| a.is_object())
        {
            let word = |field: &str| text(attributes, &format!("/{field}")).to_owned();
            Ask {
                verb: word("verb"),
                group: word("group"),
                resource: word("resource"),
                subresource: word("subresource"),
                ns: word("namespace"),
                name: word("name"),
                path: None,
            }
        } else {
            let attributes = &spec["nonResourceAttributes"];
            Ask::path(text(attributes, "/verb"), text(attributes, "/path"))
        };
        Ok(json!({"allowed": allowed(self, user, &ask).await?}))
    }

    async fn review_rules(&self, user: &User, ns: &str) -> Result<Value> {
        let all = match user.is_master() {
            true => vec![
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
            ],
            false => rules(self, user, ns).await?,
        };
        let (paths, resources): (Vec<Value>, Vec<Value>) = all
            .into_iter()
            .partition(|rule| rule.get("nonResourceURLs").is_some());
        Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
    }
}
