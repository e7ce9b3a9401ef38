//! Access rules of one identity, compiled once: per row of the bus table, whether it may be
//! written and read, always, never, or only where its own name stands. A message costs one
//! look-up of its row and a comparison, not a walk over the table's readers.

use std::sync::LazyLock;

use edgebus_bus::role::Refusal;
use edgebus_bus::table::{self, Retain, Row};
use edgebus_bus::{Identity, Role};

/// A level of a row's pattern.
enum Level {
    Literal(&'static str),
    Free,
    Rest,
}

struct Shape {
    levels: Vec<Level>,
    row: &'static Row,
}

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let level = |part: &'static str| match part {
        "#" => Level::Rest,
        free if free.starts_with('{') => Level::Free,
        literal => Level::Literal(literal),
    };
    table::rows()
        .map(|row| Shape {
            levels: row.pattern.split('/').map(level).collect(),
            row,
        })
        .collect()
});

/// A row of the table by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId(usize);

impl RowId {
    /// The row itself.
    pub fn row(self) -> &'static Row {
        SHAPES[self.0].row
    }
}

/// The row of a concrete topic.
pub fn row_of(topic: &str) -> Option<RowId> {
    let mut buffer = [""; edgebus_bus::limits::TOPIC_LEVELS];
    let mut count = 0;
    for level in topic.split('/') {
        *buffer.get_mut(count)? = level;
        count += 1;
    }
    let levels = &buffer[..count];
    SHAPES
        .iter()
        .position(|s| fits(&s.levels, levels))
        .map(RowId)
}

fn fits(shape: &[Level], levels: &[&str]) -> bool {
    let mut at = 0;
    for want in shape {
        let Some(level) = levels.get(at) else {
            return false;
        };
        match want {
            Level::Rest => return true,
            Level::Literal(text) if text == level => {}
            Level::Free if !level.is_empty() => {}
            _ => return false,
        }
        at += 1;
    }
    at == levels.len()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    No,
    Yes,
    /// Only where this level is the identity's own name.
    Own(u8),
}

/// What one identity may do.
#[derive(Debug)]
pub struct Rules {
    identity: Identity,
    write: Vec<Verdict>,
    read: Vec<Verdict>,
}

impl Rules {
    /// Compiles the rules by asking the contract about examples of each row, so that there is
    /// one source of them.
    pub fn new(identity: Identity) -> Self {
        let mut write = Vec::with_capacity(SHAPES.len());
        let mut read = Vec::with_capacity(SHAPES.len());
        let stranger = format!("{}x", identity.name);
        for shape in SHAPES.iter() {
            let own = example(shape.row, &identity.name);
            let other = example(shape.row, &stranger);
            let retain = shape.row.retain == Retain::Always;
            let verdict = |may: &dyn Fn(&str) -> bool| match (own_level(shape.row), may(&other)) {
                (_, true) => Verdict::Yes,
                (Some(level), false) if may(&own) => Verdict::Own(level),
                _ => Verdict::No,
            };
            write.push(verdict(&|t| identity.may_publish(t, retain).is_ok()));
            read.push(verdict(&|t| identity.may_read(t)));
        }
        Self {
            identity,
            write,
            read,
        }
    }

    /// Whose rules these are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// May a message of this topic be delivered?
    pub fn may_read(&self, topic: &str) -> bool {
        row_of(topic).is_some_and(|RowId(i)| self.says(self.read[i], topic))
    }

    /// May this topic be published with this retain flag? The refusal is the contract's own.
    pub fn may_publish(&self, topic: &str, retain: bool) -> Result<RowId, Refusal> {
        let allowed = row_of(topic).filter(|RowId(i)| self.says(self.write[*i], topic));
        match allowed {
            Some(id) if flag_fits(id.row().retain, retain) => Ok(id),
            _ => match self.identity.may_publish(topic, retain) {
                Err(refusal) => Err(refusal),
                // Unreachable while the compiled rules agree with the contract, which a test
                // checks; refusing is the safe side.
                Ok(_) => Err(Refusal::NoSuchTopic(topic.to_owned())),
            },
        }
    }

    /// Enforces that client ids of units belong to them.
    pub fn owns_client_id(&self, id: &str) -> bool {
        match self.identity.role {
            Role::App | Role::Operator | Role::Viewer => true,
            _ => {
                let rest = id.strip_prefix(self.identity.name.as_str());
                rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
            }
        }
    }

    fn says(&self, verdict: Verdict, topic: &str) -> bool {
        match verdict {
            Verdict::Yes => true,
            Verdict::No => false,
            Verdict::Own(level) => topic.split('/').nth(level.into()) == Some(&self.identity.name),
        }
    }
}

fn flag_fits(rule: Retain, retain: bool) -> bool {
    match rule {
        Retain::Always => retain,
        Retain::Never => !retain,
        Retain::Any => true,
    }
}

/// Filters of the state that belongs to this name alone: what is cleared when it is forgotten.
pub fn own_state(name: &str) -> Vec<String> {
    table::rows()
        .filter(|row| row.retain == Retain::Always && writes_its_own(row))
        .map(|row| table::filter_of(row.pattern, &[("c", name), ("m", name)]))
        .collect()
}

fn writes_its_own(row: &Row) -> bool {
    use edgebus_bus::role::Who;
    own_level(row).is_some()
        && row
            .writers
            .iter()
            .any(|w| matches!(w, Who::Component | Who::Mapper))
}

fn own_level(row: &Row) -> Option<u8> {
    let at = row
        .pattern
        .split('/')
        .position(|p| p == "{c}" || p == "{m}")?;
    u8::try_from(at).ok()
}

fn example(row: &Row, name: &str) -> String {
    table::filter_of(row.pattern, &[("c", name), ("m", name)]).replace(['+', '#'], "00")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgebus_bus::ROOT;

    fn topics() -> Vec<String> {
        let mut out: Vec<String> = table::rows()
            .flat_map(|row| ["modbus", "link", "app", "x"].map(|n| example(row, n)))
            .collect();
        out.extend(["", "/", "nothing", "app", "app/", "$SYS/x"].map(str::to_owned));
        out
    }

    #[test]
    fn compiled_rules_say_what_the_contract_says() {
        let roles = [
            Role::Link,
            Role::Edged,
            Role::DeviceTwin,
            Role::Mapper,
            Role::App,
            Role::Operator,
            Role::Viewer,
        ];
        for role in roles {
            for name in ["modbus", "link", "app"] {
                let id = Identity::new(role, name);
                let rules = Rules::new(id.clone());
                for topic in topics() {
                    assert_eq!(
                        rules.may_read(&topic),
                        id.may_read(&topic),
                        "{id:?} {topic}"
                    );
                    for retain in [true, false] {
                        let said = rules.may_publish(&topic, retain).map(|r| r.row().pattern);
                        let want = id.may_publish(&topic, retain).map(|r| r.pattern);
                        assert_eq!(said, want, "{id:?} {topic} {retain}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_units_client_ids_start_with_its_name() {
        let m = Rules::new(Identity::new(Role::Mapper, "modbus"));
        assert!(m.owns_client_id("modbus") && m.owns_client_id("modbus.2"));
        assert!(!m.owns_client_id("modbus2") && !m.owns_client_id("link"));
        let a = Rules::new(Identity::new(Role::App, "app"));
        assert!(a.owns_client_id("mosq-1"));
    }

    #[test]
    fn what_is_cleared_with_a_mapper_is_its_own() {
        let own = own_state("modbus");
        assert!(
            own.contains(&format!("{ROOT}/mapper/modbus/hello")),
            "{own:?}"
        );
        assert!(
            own.contains(&format!("{ROOT}/sys/modbus/health")),
            "{own:?}"
        );
        assert!(!own.iter().any(|f| f.ends_with("/want")), "{own:?}");
    }
}
