//! The JSONPath dialect of printer columns: `.a.b`, `['b']`, `[0]`, `[-1]`, `[*]`, `.*`,
//! `..b`, and filters `[?(@.type=="Ready")]`.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Descend(String),
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Vec<Step>,
    operator: Option<&'static str>,
    right: Value,
}

/// The longest path that is read.
const MOST_BYTES: usize = 1024;

/// A parsed path. One that cannot be parsed finds nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    steps: Vec<Step>,
}

impl Path {
    pub fn parse(text: &str) -> Option<Path> {
        let text = text.trim();
        // Filters nest, and nesting costs stack.
        if text.len() > MOST_BYTES {
            return None;
        }
        let text = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(text);
        steps(text.trim_start_matches('$')).map(|steps| Path { steps })
    }

    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        find(&self.steps, object)
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("..") {
            let (name, tail) = field(tail);
            steps.push(Step::Descend(name?));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('.') {
            if let Some(tail) = tail.strip_prefix('*') {
                steps.push(Step::All);
                rest = tail;
            } else if tail.starts_with('[') || tail.is_empty() {
                rest = tail;
            } else {
                let (name, tail) = field(tail);
                steps.push(Step::Field(name?));
                rest = tail;
            }
        } else if let Some(tail) = rest.strip_prefix('[') {
            let end = closing(tail)?;
            steps.push(bracket(tail[..end].trim())?);
            rest = &tail[end + 1..];
        } else if steps.is_empty() {
            let (name, tail) = field(rest);
            steps.push(Step::Field(name?));
            rest = tail;
        } else {
            return None;
        }
    }
    Some(steps)
}

/// A field's name, where `\.` is a dot that does not separate.
fn field(text: &str) -> (Option<String>, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (Some(name).filter(|n| !n.is_empty()), &text[at..]),
            c => name.push(c),
        }
    }
    (Some(name).filter(|n| !n.is_empty()), "")
}

/// Where the bracket that was just opened closes, quotes and nesting respected.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"']
        .into_iter()
        .find_map(|q| text.strip_prefix(q)?.strip_suffix(q))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    let test = text.strip_prefix("?(")?.strip_suffix(')')?.trim();
    for operator in ["==", "!=", "<=", ">=", "<", ">"] {
        if let Some((left, right)) = test.split_once(operator) {
            let right = right.trim();
            let right = match quoted(right) {
                Some(text) => Value::String(text.to_owned()),
                None => serde_json::from_str(right).ok()?,
            };
            let left = steps(left.trim().strip_prefix('@')?)?;
            return Some(Step::Filter(Filter {
                left,
                operator: Some(operator),
                right,
            }));
        }
    }
    let left = steps(test.strip_prefix('@')?)?;
    Some(Step::Filter(Filter {
        left,
        operator: None,
        right: Value::Null,
    }))
}

fn find<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        found = found.into_iter().flat_map(|v| advance(step, v)).collect();
    }
    found
}

fn members(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

fn advance<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let at = match usize::try_from(*index) {
                Ok(at) => Some(at),
                Err(_) => usize::try_from(-*index)
                    .ok()
                    .and_then(|back| items.len().checked_sub(back)),
            };
            at.and_then(|at| items.get(at)).into_iter().collect()
        }
        Step::All => members(value),
        Step::Descend(name) => {
            let mut found = Vec::new();
            let mut open = vec![value];
            while let Some(value) = open.pop() {
                found.extend(value.get(name));
                open.extend(members(value).into_iter().rev());
            }
            found
        }
        Step::Filter(filter) => members(value)
            .into_iter()
            .filter(|member| filter.holds(member))
            .collect(),
    }
}

impl Filter {
    fn holds(&self, member: &Value) -> bool {
        let found = find(&self.left, member);
        let Some(operator) = self.operator else {
            return !found.is_empty();
        };
        found.iter().any(|left| {
            let order = match (left.as_f64(), self.right.as_f64()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => match (left.as_str(), self.right.as_str()) {
                    (Some(a), Some(b)) => Some(a.cmp(b)),
                    _ => (**left == self.right).then_some(std::cmp::Ordering::Equal),
                },
            };
            match operator {
                "==" => order.is_some_and(std::cmp::Ordering::is_eq),
                "!=" => !order.is_some_and(std::cmp::Ordering::is_eq),
                "<" => order.is_some_and(std::cmp::Ordering::is_lt),
                "<=" => order.is_some_and(std::cmp::Ordering::is_le),
                ">" => order.is_some_and(std::cmp::Ordering::is_gt),
                _ => order.is_some_and(std::cmp::Ordering::is_ge),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_the_dialect_finds_what_it_names() {
        let object = json!({"a": {"b.c": 1, "d": [10, 20, 30]},
            "twins": [{"name": "temp", "reported": {"value": "21"}}, {"name": "on", "n": 2}]});
        for (path, expected) in [
            (".a['b.c']", vec![json!(1)]),
            (".a.b\\.c", vec![json!(1)]),
            ("{.a.d[1]}", vec![json!(20)]),
            (".a.d[-1]", vec![json!(30)]),
            (".a.d[*]", vec![json!(10), json!(20), json!(30)]),
            (
                ".twins[?(@.name==\"temp\")].reported.value",
                vec![json!("21")],
            ),
            (".twins[?(@.n)].name", vec![json!("on")]),
            (".twins[?(@.n>=2)].name", vec![json!("on")]),
            ("..value", vec![json!("21")]),
            (".missing.x", vec![]),
            ("a.d[0]", vec![json!(10)]),
        ] {
            let found: Vec<Value> = Path::parse(path)
                .unwrap()
                .find(&object)
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn broken_paths_are_refused_and_do_not_panic() {
        for path in [
            ".a[",
            ".a[?(",
            ".a[?(x)]",
            "...",
            ".a[b]",
            ".a[?(@.x==)]",
            ".\\",
        ] {
            assert_eq!(Path::parse(path), None, "{path}");
        }
        assert_eq!(Path::parse(&".a[?(@".repeat(100_000)), None);
    }
}
