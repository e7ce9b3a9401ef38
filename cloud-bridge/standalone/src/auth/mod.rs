//! Who asks, and whether they may.

mod allow;
mod review;
mod token;

pub use allow::{Ask, allowed};
pub use token::Tokens;

use crate::error::{ApiError, Result};
use crate::ops::Api;
use http::HeaderMap;
use serde_json::{Value, json};

pub const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// A requester, as its certificate or token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

impl User {
    pub fn anonymous() -> User {
        User {
            name: "system:anonymous".into(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".into()],
        }
    }

    pub fn authenticated(name: String, uid: String, mut groups: Vec<String>) -> User {
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        User { name, uid, groups }
    }

    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }

    /// As `UserInfo` in reviews.
    pub fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        info
    }
}

/// The user in a verified client certificate: CN is the name, every O a group.
pub fn from_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(ToOwned::to_owned))
        .collect();
    Some(User::authenticated(name, String::new(), groups))
}

/// The user of a request: its connection's certificate, else its bearer token. A token that
/// is not good is refused even where anonymous requests are not.
pub async fn authenticate(
    api: &Api,
    certificate: Option<&User>,
    authorization: Option<&str>,
) -> Result<User> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(header) = authorization else {
        return Ok(User::anonymous());
    };
    let Some((scheme, token)) = header.split_once(' ') else {
        return Err(ApiError::unauthorized());
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(User::anonymous());
    }
    match api.tokens.verify(&api.store, token.trim()).await? {
        Some(user) => Ok(user),
        None => Err(ApiError::unauthorized()),
    }
}

/// Whom a request is made as (`kubectl --as`): the requester itself, or somebody it may
/// impersonate.
pub async fn impersonate(api: &Api, user: User, headers: &HeaderMap) -> Result<User> {
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok().map(ToOwned::to_owned))
            .collect()
    };
    let groups = all("impersonate-group");
    let Some(name) = all("impersonate-user").into_iter().next() else {
        return match groups.is_empty() {
            true => Ok(user),
            false => Err(ApiError::bad_request(
                "Impersonate-Group is set without Impersonate-User",
            )),
        };
    };
    let mut asks = vec![("users", &name)];
    asks.extend(groups.iter().map(|g| ("groups", g)));
    for (resource, name) in asks {
        let ask = Ask {
            verb: "impersonate".into(),
            resource: resource.into(),
            name: name.clone(),
            ..Ask::default()
        };
        if !allowed(api, &user, &ask).await? {
            return Err(ask.refused(&user));
        }
    }
    if name == "system:anonymous" {
        return Ok(User::anonymous());
    }
    Ok(User::authenticated(name, String::new(), groups))
}
