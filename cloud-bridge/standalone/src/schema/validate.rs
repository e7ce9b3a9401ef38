//! Validates a value against a schema, with the API server's words for custom resources.

use serde_json::Value;

use super::cause::{Cause, Reason};
use super::node::{Rules, Schema, Ty, View};
use super::types::{push_index, push_key};
use super::{format, node::Additional};

/// An answer names at most so many problems.
const MAX_CAUSES: usize = 50;

impl Schema {
    /// Everything that is wrong with `value`; empty = valid.
    pub fn validate(&self, value: &Value) -> Vec<Cause> {
        let mut run = Run {
            path: String::new(),
            causes: Vec::new(),
        };
        run.check(self.view(), value);
        run.causes
    }
}

struct Run {
    path: String,
    causes: Vec<Cause>,
}

impl Run {
    fn field(&self) -> String {
        match self.path.as_str() {
            "" => "<nil>".to_owned(),
            path => path.to_owned(),
        }
    }

    fn add(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    /// `Invalid value: <value>: <path> in body <detail>`
    fn invalid(&mut self, value: &str, detail: &str) {
        let body = match self.path.as_str() {
            "" => format!("in body {detail}"),
            path => format!("{path} in body {detail}"),
        };
        self.add(Cause::invalid(self.field(), value, &body));
    }

    /// Checks into a list of its own: a branch of `anyOf` and its like.
    fn trial(&mut self, schema: View<'_>, value: &Value) -> Vec<Cause> {
        let outer = std::mem::take(&mut self.causes);
        self.check(schema, value);
        std::mem::replace(&mut self.causes, outer)
    }

    fn check(&mut self, schema: View<'_>, value: &Value) {
        if self.causes.len() >= MAX_CAUSES {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        if !self.type_fits(schema, value) {
            return;
        }
        match value {
            Value::Object(map) => {
                let len = self.path.len();
                for name in &schema.required {
                    if !map.contains_key(&**name) {
                        push_key(&mut self.path, name);
                        let field = self.field();
                        self.add(Cause::required(field, ""));
                        self.path.truncate(len);
                    }
                }
                for (key, child) in map {
                    push_key(&mut self.path, key);
                    match schema.member(key) {
                        Some(schema) => self.check(schema, child),
                        None if schema.additional == Additional::None && !schema.preserve => {
                            let field = self.field();
                            self.add(Cause::forbidden(field, "unknown field"));
                        }
                        None => {}
                    }
                    self.path.truncate(len);
                }
            }
            Value::Array(list) => {
                let len = self.path.len();
                for (i, child) in list.iter().enumerate() {
                    let Some(items) = schema.items() else { break };
                    push_index(&mut self.path, i);
                    self.check(items, child);
                    self.path.truncate(len);
                }
                self.identities(schema, list);
            }
            Value::String(text) => self.format(schema, text),
            Value::Number(_) => self.number_format(schema, value),
            _ => {}
        }
        if let Some(rules) = &schema.rules {
            self.rules(schema, rules, value);
        }
    }

    /// Whether the JSON type is right; says so if not.
    fn type_fits(&mut self, schema: View<'_>, value: &Value) -> bool {
        if schema.int_or_string {
            if value.is_string() || is_integer(value) {
                return true;
            }
            self.wrong_type("integer,string", value);
            return false;
        }
        let Some(ty) = schema.ty else { return true };
        let fits = match (ty, value) {
            (Ty::Object, Value::Object(_))
            | (Ty::Array, Value::Array(_))
            | (Ty::String, Value::String(_))
            | (Ty::Boolean, Value::Bool(_))
            | (Ty::Number, Value::Number(_)) => true,
            (Ty::Integer, _) => is_integer(value),
            _ => false,
        };
        if !fits {
            self.wrong_type(ty.as_str(), value);
        }
        fits
    }

    fn wrong_type(&mut self, expected: &str, value: &Value) {
        let found = type_name(value);
        let detail = format!("must be of type {expected}: {found:?}");
        let body = match self.path.as_str() {
            "" => format!("in body {detail}"),
            path => format!("{path} in body {detail}"),
        };
        let field = self.field();
        let shown = format!("{found:?}");
        self.add(Cause::valued(Reason::TypeInvalid, field, &shown, &body));
    }

    fn format(&mut self, schema: View<'_>, text: &str) {
        if let Some(format) = &schema.format
            && !schema.int_or_string
            && !format::matches(format, text)
        {
            let detail = format!("must be of type {format}: {text:?}");
            self.invalid(&format!("{text:?}"), &detail);
        }
    }

    fn number_format(&mut self, schema: View<'_>, value: &Value) {
        if schema.format.as_deref() == Some("int32")
            && let Some(number) = value.as_f64()
            && (number < f64::from(i32::MIN) || number > f64::from(i32::MAX))
        {
            self.invalid(&value.to_string(), "must be of type int32");
        }
    }

    /// `x-kubernetes-list-type: set` and `map` forbid the same member twice.
    fn identities(&mut self, schema: View<'_>, list: &[Value]) {
        use super::node::Topology;
        let keys: &[Box<str>] = match &schema.topology {
            Topology::Set => &[],
            Topology::Map(keys) => keys,
            _ => return,
        };
        let identity = |item: &Value| -> String {
            if keys.is_empty() {
                return item.to_string();
            }
            let members: serde_json::Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())))
                .collect();
            Value::Object(members).to_string()
        };
        let mut seen = std::collections::BTreeSet::new();
        let len = self.path.len();
        for (i, item) in list.iter().enumerate() {
            let id = identity(item);
            if !seen.insert(id.clone()) {
                push_index(&mut self.path, i);
                let field = self.field();
                self.add(Cause::duplicate(field, &id));
                self.path.truncate(len);
            }
        }
    }

    fn rules(&mut self, schema: View<'_>, rules: &Rules, value: &Value) {
        if !rules.allowed.is_empty() && !rules.allowed.iter().any(|a| same(a, value)) {
            let allowed: Vec<String> = rules.allowed.iter().map(Value::to_string).collect();
            let field = self.field();
            self.add(Cause::not_supported(field, &value.to_string(), &allowed));
        }
        match value {
            Value::Number(_) => self.number(rules, value),
            Value::String(text) => self.text(rules, text),
            Value::Array(list) => self.list(rules, list),
            Value::Object(map) => self.map(rules, map.len() as u64),
            _ => {}
        }
        self.combinations(schema, rules, value);
    }

    fn number(&mut self, rules: &Rules, value: &Value) {
        let Some(number) = value.as_f64() else { return };
        let shown = value.to_string();
        if let Some(min) = rules.minimum {
            if rules.exclusive_minimum && number <= min {
                self.invalid(&shown, &format!("should be greater than {min}"));
            } else if number < min {
                self.invalid(&shown, &format!("should be greater than or equal to {min}"));
            }
        }
        if let Some(max) = rules.maximum {
            if rules.exclusive_maximum && number >= max {
                self.invalid(&shown, &format!("should be less than {max}"));
            } else if number > max {
                self.invalid(&shown, &format!("should be less than or equal to {max}"));
            }
        }
        if let Some(step) = rules.multiple_of
            && step > 0.0
            && !is_multiple(number, step)
        {
            self.invalid(&shown, &format!("should be a multiple of {step}"));
        }
    }

    fn text(&mut self, rules: &Rules, text: &str) {
        let chars = text.chars().count() as u64;
        let shown = format!("{text:?}");
        if let Some(min) = rules.min_length
            && chars < min
        {
            self.invalid(&shown, &format!("should be at least {min} chars long"));
        }
        if let Some(max) = rules.max_length
            && chars > max
        {
            let detail = format!("may not be more than {max} bytes");
            let field = self.field();
            self.add(Cause::plain(Reason::TooLong, field, &detail));
        }
        if let Some(pattern) = &rules.pattern
            && !pattern.regex.is_match(text)
        {
            let detail = format!("should match '{}'", pattern.text);
            self.invalid(&shown, &detail);
        }
    }

    fn list(&mut self, rules: &Rules, list: &[Value]) {
        let count = list.len() as u64;
        if let Some(min) = rules.min_items
            && count < min
        {
            let detail = format!("should have at least {min} items");
            self.invalid(&count.to_string(), &detail);
        }
        if let Some(max) = rules.max_items
            && count > max
        {
            let shown = count.to_string();
            let detail = format!("must have at most {max} items");
            let field = self.field();
            self.add(Cause::valued(Reason::TooMany, field, &shown, &detail));
        }
        if rules.unique_items {
            let mut seen = std::collections::BTreeSet::new();
            if !list.iter().all(|item| seen.insert(item.to_string())) {
                self.invalid("\"array\"", "shouldn't contain duplicates");
            }
        }
    }

    fn map(&mut self, rules: &Rules, count: u64) {
        if let Some(min) = rules.min_properties
            && count < min
        {
            let detail = format!("should have at least {min} properties");
            self.invalid(&count.to_string(), &detail);
        }
        if let Some(max) = rules.max_properties
            && count > max
        {
            let shown = count.to_string();
            let detail = format!("must have at most {max} properties");
            let field = self.field();
            self.add(Cause::valued(Reason::TooMany, field, &shown, &detail));
        }
    }

    fn combinations(&mut self, schema: View<'_>, rules: &Rules, value: &Value) {
        for part in schema.all(&rules.all_of) {
            self.check(part, value);
        }
        let shown = shown(value);
        if !rules.any_of.is_empty() {
            let failures: Vec<Vec<Cause>> = schema
                .all(&rules.any_of)
                .map(|part| self.trial(part, value))
                .collect();
            if failures.iter().all(|causes| !causes.is_empty()) {
                self.invalid(&shown, "must validate at least one schema (anyOf)");
                self.nearest(failures);
            }
        }
        if !rules.one_of.is_empty() {
            let failures: Vec<Vec<Cause>> = schema
                .all(&rules.one_of)
                .map(|part| self.trial(part, value))
                .collect();
            let valid = failures.iter().filter(|causes| causes.is_empty()).count();
            if valid == 0 {
                let detail = "must validate one and only one schema (oneOf). Found none valid";
                self.invalid(&shown, detail);
                self.nearest(failures);
            } else if valid > 1 {
                let detail = format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                );
                self.invalid(&shown, &detail);
            }
        }
        if let Some(not) = rules.not
            && self.trial(schema.one(not), value).is_empty()
        {
            self.invalid(&shown, "must not validate the schema (not)");
        }
    }

    /// Tells what the alternative that came closest still lacks.
    fn nearest(&mut self, failures: Vec<Vec<Cause>>) {
        if let Some(causes) = failures.into_iter().min_by_key(Vec::len) {
            for cause in causes {
                self.add(cause);
            }
        }
    }
}

/// How a value is shown in a message: composite ones by their type alone.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => format!("{:?}", type_name(value)),
        _ => value.to_string(),
    }
}

fn is_integer(value: &Value) -> bool {
    // JSON makes no difference between 1 and 1.0.
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn is_multiple(number: f64, step: f64) -> bool {
    let quotient = number / step;
    (quotient - quotient.round()).abs() <= 1e-9 * quotient.abs().max(1.0)
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
