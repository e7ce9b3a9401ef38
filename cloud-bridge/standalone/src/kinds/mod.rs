//! What is particular to a built-in kind when it is written: defaults beside the schema's,
//! and checks that a schema cannot express. Everything common is in `ops`.

mod apps;
mod crd;
mod node;
mod pod;
mod small;

use crate::schema::Cause;
use serde_json::Value;

/// The particulars of one kind. All functions are pure.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// On create, after `status` was dropped where it has its own subresource.
    pub create: fn(&mut Value),
    /// On every write, before validation.
    pub default: fn(&mut Value),
    /// Carries over what a client cannot change (`new`, `old`).
    pub update: fn(&mut Value, &Value),
    /// What is wrong; the second object is the old one on update.
    pub validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// Whether `metadata.generation` counts changes of this kind.
    pub generation: bool,
}

impl Hooks {
    pub const NONE: Hooks = Hooks {
        create: |_| {},
        default: |_| {},
        update: |_, _| {},
        validate: |_, _| Vec::new(),
        generation: false,
    };
}

pub const NAMESPACE: Hooks = Hooks {
    create: small::create_namespace,
    default: small::default_namespace,
    update: small::update_namespace,
    ..Hooks::NONE
};
pub const NODE: Hooks = Hooks {
    default: node::default,
    validate: node::validate,
    ..Hooks::NONE
};
pub const POD: Hooks = Hooks {
    create: pod::create,
    default: pod::default,
    update: pod::update,
    validate: pod::validate,
    generation: true,
};
pub const DEPLOYMENT: Hooks = Hooks {
    default: apps::default_deployment,
    validate: apps::validate,
    generation: true,
    ..Hooks::NONE
};
pub const REPLICA_SET: Hooks = Hooks {
    default: apps::default_replica_set,
    ..DEPLOYMENT
};
pub const DAEMON_SET: Hooks = Hooks {
    default: apps::default_daemon_set,
    ..DEPLOYMENT
};
pub const CONFIG_MAP: Hooks = Hooks {
    validate: small::validate_data,
    ..Hooks::NONE
};
pub const SECRET: Hooks = Hooks {
    default: small::default_secret,
    validate: small::validate_secret,
    ..Hooks::NONE
};
pub const SERVICE: Hooks = Hooks {
    default: small::default_service,
    ..Hooks::NONE
};
pub const EVENT: Hooks = Hooks {
    default: small::default_event,
    validate: small::validate_event,
    ..Hooks::NONE
};
pub const CRD: Hooks = Hooks {
    create: crd::create,
    default: crd::default,
    validate: crd::validate,
    generation: true,
    ..Hooks::NONE
};
pub const ROLE_BINDING: Hooks = Hooks {
    default: small::default_binding,
    validate: small::validate_binding,
    ..Hooks::NONE
};

/// Sets a field that is not there.
fn fill(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object.get(field).is_none_or(Value::is_null)
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert(field.to_owned(), value.into());
    }
}
