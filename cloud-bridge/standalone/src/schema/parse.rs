//! JSON schema text → the compact form of `node.rs`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::{Additional, Arena, Node, PatchRule, Pattern, Rules, Topology, Ty};

/// Deeper schemas are refused: every walk over a schema is recursive.
pub(crate) const MAX_DEPTH: usize = 64;
/// Nodes in one schema document; the largest published CRDs have some 10,000.
const MAX_NODES: usize = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("{path}: schema is nested deeper than {MAX_DEPTH} levels")]
    TooDeep { path: String },
    #[error("{path}: schema has more than {MAX_NODES} nodes")]
    TooLarge { path: String },
    #[error("{path}: pattern {pattern:?} is not a supported regular expression: {source}")]
    Pattern {
        path: String,
        pattern: String,
        #[source]
        source: Box<regex_lite::Error>,
    },
    #[error("{path}: unknown reference {name:?}")]
    UnknownRef { path: String, name: String },
}

/// Where `$ref`s of built-in components point to.
pub(crate) type Components = BTreeMap<String, Value>;

pub(crate) struct Builder<'a> {
    components: &'a Components,
    nodes: Vec<Node>,
    /// Finished or reserved components by name.
    named: BTreeMap<String, u32>,
    /// Leaves that occur again and again (`type: string`) are stored once.
    leaves: Vec<u32>,
    lax: bool,
}

impl<'a> Builder<'a> {
    /// `lax` = built-in kinds: an object without properties accepts anything.
    pub fn new(components: &'a Components, lax: bool) -> Builder<'a> {
        Builder {
            components,
            nodes: Vec::new(),
            named: BTreeMap::new(),
            leaves: Vec::new(),
            lax,
        }
    }

    pub fn finish(self) -> Arena {
        let mut nodes = self.nodes;
        nodes.shrink_to_fit();
        Arena { nodes }
    }

    pub fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// The node of a named component, parsed at first use.
    pub fn component(&mut self, name: &str, path: &str) -> Result<u32, SchemaError> {
        if let Some(id) = self.named.get(name) {
            return Ok(*id);
        }
        let components = self.components;
        let Some(Value::Object(schema)) = components.get(name) else {
            return Err(SchemaError::UnknownRef {
                path: path.to_owned(),
                name: name.to_owned(),
            });
        };
        // Reserved before its body is parsed: a component may refer to itself.
        let id = self.push(Node::default());
        self.named.insert(name.to_owned(), id);
        let node = self.body(schema, name, 0)?;
        self.nodes[id as usize] = node;
        Ok(id)
    }

    pub fn schema(&mut self, value: &Value, path: &str, depth: usize) -> Result<u32, SchemaError> {
        if depth > MAX_DEPTH {
            return Err(SchemaError::TooDeep {
                path: path.to_owned(),
            });
        }
        if self.nodes.len() > MAX_NODES {
            return Err(SchemaError::TooLarge {
                path: path.to_owned(),
            });
        }
        let empty = Map::new();
        let schema = value.as_object().unwrap_or(&empty);
        if let Some(target) = reference(schema) {
            let id = self.component(target, path)?;
            return Ok(self.with_extensions(id, schema));
        }
        let node = self.body(schema, path, depth)?;
        let leaf = node.props.is_empty()
            && node.items.is_none()
            && node.rules.is_none()
            && node.default.is_none()
            && !matches!(node.additional, Additional::Schema(_));
        if !leaf {
            return Ok(self.push(node));
        }
        if let Some(id) = self
            .leaves
            .iter()
            .find(|id| self.nodes[**id as usize] == node)
        {
            return Ok(*id);
        }
        let id = self.push(node);
        self.leaves.push(id);
        Ok(id)
    }

    /// A property that refers to a component may add merge rules of its own.
    fn with_extensions(&mut self, id: u32, schema: &Map<String, Value>) -> u32 {
        let patch = patch_rule(schema);
        let topology = topology(schema);
        if patch.is_none() && topology == Topology::Default {
            return id;
        }
        let mut node = self.nodes[id as usize].clone();
        if patch.is_some() {
            node.patch = patch.map(Box::new);
        }
        if topology != Topology::Default {
            node.topology = topology;
        }
        self.push(node)
    }

    fn body(
        &mut self,
        schema: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<Node, SchemaError> {
        let mut node = Node {
            ty: schema
                .get("type")
                .and_then(Value::as_str)
                .and_then(Ty::parse),
            lax: self.lax,
            nullable: flag(schema, "nullable"),
            int_or_string: flag(schema, "x-kubernetes-int-or-string")
                || schema.get("format").and_then(Value::as_str) == Some("int-or-string"),
            preserve: flag(schema, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(schema, "x-kubernetes-embedded-resource"),
            format: text(schema, "format"),
            required: texts(schema.get("required")),
            default: schema.get("default").cloned().map(Box::new),
            topology: topology(schema),
            patch: patch_rule(schema).map(Box::new),
            ..Node::default()
        };
        if let Some(Value::Object(props)) = schema.get("properties") {
            node.props.reserve_exact(props.len());
            for (name, value) in props {
                let id = self.schema(value, &format!("{path}.properties[{name}]"), depth + 1)?;
                node.props.push((name.as_str().into(), id));
            }
            node.props.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        if let Some(items) = schema.get("items") {
            node.items = Some(self.schema(items, &format!("{path}.items"), depth + 1)?);
        }
        node.additional = match schema.get("additionalProperties") {
            None => Additional::Unset,
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::None,
            Some(value) => Additional::Schema(self.schema(
                value,
                &format!("{path}.additionalProperties"),
                depth + 1,
            )?),
        };
        let rules = self.rules(schema, path, depth)?;
        node.rules = (rules != Rules::default()).then(|| Box::new(rules));
        Ok(node)
    }

    fn rules(
        &mut self,
        schema: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<Rules, SchemaError> {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let pattern = match schema.get("pattern").and_then(Value::as_str) {
            None | Some("") => None,
            Some(text) => Some(pattern(text, path)?),
        };
        let mut rules = Rules {
            allowed: schema
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag(schema, "exclusiveMinimum"),
            exclusive_maximum: flag(schema, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern,
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag(schema, "uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            ..Rules::default()
        };
        for (key, list) in [
            ("allOf", &mut rules.all_of),
            ("anyOf", &mut rules.any_of),
            ("oneOf", &mut rules.one_of),
        ] {
            let Some(Value::Array(parts)) = schema.get(key) else {
                continue;
            };
            for (i, part) in parts.iter().enumerate() {
                list.push(self.schema(part, &format!("{path}.{key}[{i}]"), depth + 1)?);
            }
        }
        if let Some(part) = schema.get("not") {
            rules.not = Some(self.schema(part, &format!("{path}.not"), depth + 1)?);
        }
        Ok(rules)
    }
}

/// The component a schema refers to, directly or through an `allOf` of one.
pub(crate) fn reference(schema: &Map<String, Value>) -> Option<&str> {
    let target = match schema.get("$ref") {
        Some(Value::String(target)) => target,
        _ => match schema.get("allOf")?.as_array()?.as_slice() {
            [Value::Object(only)] => only.get("$ref")?.as_str()?,
            _ => return None,
        },
    };
    target.rsplit('/').next()
}

pub(crate) fn pattern(text: &str, path: &str) -> Result<Pattern, SchemaError> {
    let regex = regex_lite::Regex::new(text).map_err(|source| SchemaError::Pattern {
        path: path.to_owned(),
        pattern: text.to_owned(),
        source: Box::new(source),
    })?;
    Ok(Pattern {
        text: text.into(),
        regex,
    })
}

fn flag(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text(schema: &Map<String, Value>, key: &str) -> Option<Box<str>> {
    schema.get(key).and_then(Value::as_str).map(Into::into)
}

fn texts(value: Option<&Value>) -> Vec<Box<str>> {
    let Some(Value::Array(list)) = value else {
        return Vec::new();
    };
    list.iter()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

fn topology(schema: &Map<String, Value>) -> Topology {
    let word = |key: &str| schema.get(key).and_then(Value::as_str);
    match word("x-kubernetes-list-type") {
        Some("atomic") => return Topology::Atomic,
        Some("set") => return Topology::Set,
        Some("map") => {
            let keys = texts(schema.get("x-kubernetes-list-map-keys"));
            return Topology::Map(keys.into_boxed_slice());
        }
        _ => {}
    }
    match word("x-kubernetes-map-type") {
        Some("atomic") => Topology::Atomic,
        _ => Topology::Default,
    }
}

fn patch_rule(schema: &Map<String, Value>) -> Option<PatchRule> {
    let strategy = text(schema, "x-kubernetes-patch-strategy");
    let key = text(schema, "x-kubernetes-patch-merge-key");
    if strategy.is_none() && key.is_none() {
        return None;
    }
    let has = |word: &str| {
        strategy
            .as_deref()
            .is_some_and(|s| s.split(',').any(|part| part == word))
    };
    Some(PatchRule {
        merge: has("merge"),
        replace: has("replace"),
        retain_keys: has("retainKeys"),
        key,
    })
}
