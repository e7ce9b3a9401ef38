//! The compact form of a schema: nodes in one arena, references resolved to indices (so
//! a schema may contain itself), no descriptions. A [`Schema`] is cheap to clone.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

/// The schema of one kind (or of one part of it).
#[derive(Clone, Debug)]
pub struct Schema {
    pub(crate) arena: Arc<Arena>,
    pub(crate) root: u32,
}

impl Schema {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            arena: &self.arena,
            id: self.root,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub nodes: Vec<Node>,
}

/// A node together with the arena its children live in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub arena: &'a Arena,
    pub id: u32,
}

impl<'a> View<'a> {
    pub fn node(self) -> &'a Node {
        &self.arena.nodes[self.id as usize]
    }

    fn at(self, id: u32) -> View<'a> {
        View {
            arena: self.arena,
            id,
        }
    }

    /// The schema of a named property, without looking at `additionalProperties`.
    pub fn prop(self, name: &str) -> Option<View<'a>> {
        let props = &self.node().props;
        let found = props.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(self.at(props[found].1))
    }

    /// Every named property, sorted by name.
    pub fn props(self) -> impl Iterator<Item = (&'a str, View<'a>)> {
        self.node()
            .props
            .iter()
            .map(move |(key, id)| (&**key, self.at(*id)))
    }

    /// The schema of values that have no property of their own.
    pub fn additional(self) -> Option<View<'a>> {
        match self.node().additional {
            Additional::Schema(id) => Some(self.at(id)),
            _ => None,
        }
    }

    pub fn items(self) -> Option<View<'a>> {
        self.node().items.map(|id| self.at(id))
    }

    /// The schema of the member `name`, be it a property or a map's value.
    pub fn member(self, name: &str) -> Option<View<'a>> {
        self.prop(name).or_else(|| self.additional())
    }

    pub fn all(self, ids: &'a [u32]) -> impl Iterator<Item = View<'a>> {
        ids.iter().map(move |id| self.at(*id))
    }

    pub fn one(self, id: u32) -> View<'a> {
        self.at(id)
    }

    /// Whether members without a schema are allowed and kept.
    pub fn open(self) -> bool {
        let node = self.node();
        node.preserve
            || node.additional == Additional::Any
            || (node.props.is_empty()
                && node.additional == Additional::Unset
                && node.lax
                && matches!(node.ty, None | Some(Ty::Object)))
    }
}

impl Deref for View<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node()
    }
}

/// The JSON types that Kubernetes schemas name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Ty {
    pub fn parse(word: &str) -> Option<Ty> {
        Some(match word {
            "object" => Ty::Object,
            "array" => Ty::Array,
            "string" => Ty::String,
            "integer" => Ty::Integer,
            "number" => Ty::Number,
            "boolean" => Ty::Boolean,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Ty::Object => "object",
            Ty::Array => "array",
            Ty::String => "string",
            Ty::Integer => "integer",
            Ty::Number => "number",
            Ty::Boolean => "boolean",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Additional {
    #[default]
    Unset,
    Any,
    None,
    Schema(u32),
}

/// How server-side apply owns and merges a list or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Lists are atomic, maps and structs are merged member by member.
    #[default]
    Default,
    Atomic,
    /// A list of scalars in which each value occurs once.
    Set,
    /// A list of objects that these members identify.
    Map(Box<[Box<str>]>),
}

/// How a strategic merge patch treats a list or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchRule {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
    pub key: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub ty: Option<Ty>,
    /// An object with no properties at all accepts anything (`type: object` of built-in
    /// kinds, RawExtension), where a custom resource's would be pruned empty.
    pub lax: bool,
    pub nullable: bool,
    pub int_or_string: bool,
    pub preserve: bool,
    pub embedded: bool,
    pub format: Option<Box<str>>,
    /// Sorted by name.
    pub props: Vec<(Box<str>, u32)>,
    pub required: Vec<Box<str>>,
    pub items: Option<u32>,
    pub additional: Additional,
    pub default: Option<Box<Value>>,
    pub topology: Topology,
    pub patch: Option<Box<PatchRule>>,
    pub rules: Option<Box<Rules>>,
}

/// The value validations; most nodes have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    pub allowed: Vec<Value>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<u32>,
    pub any_of: Vec<u32>,
    pub one_of: Vec<u32>,
    pub not: Option<u32>,
}

/// A compiled `pattern` with its source text.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub text: Box<str>,
    pub regex: regex_lite::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}
