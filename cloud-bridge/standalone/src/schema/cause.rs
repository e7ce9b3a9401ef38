//! One reason why an object is refused, in the words and the shape of the causes of a
//! Kubernetes `Status` (422 Invalid).

use std::fmt;

/// The machine-readable class of a [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl Reason {
    /// As `status.details.causes[].reason` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Reason::Required => "Required value",
            Reason::Invalid | Reason::TypeInvalid => "Invalid value",
            Reason::NotSupported => "Unsupported value",
            Reason::Duplicate => "Duplicate value",
            Reason::Forbidden => "Forbidden",
            Reason::TooLong => "Too long",
            Reason::TooMany => "Too many",
        }
    }
}

/// One reason why an object is refused. `Display` gives the whole line
/// (`spec.x: Required value`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: Reason,
    /// Path of the field, `spec.properties[0].type`; `<nil>` for the object itself.
    pub field: String,
    /// Words without the path: `Required value`.
    pub message: String,
}

impl Cause {
    /// `Required value[: detail]`
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        Cause::plain(Reason::Required, field, detail)
    }

    /// `Forbidden: detail`
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause::plain(Reason::Forbidden, field, detail)
    }

    /// `Invalid value: value: detail`; `value` is already quoted as it shall be shown.
    pub fn invalid(field: impl Into<String>, value: &str, detail: &str) -> Cause {
        Cause::valued(Reason::Invalid, field, value, detail)
    }

    /// `Duplicate value: value`
    pub fn duplicate(field: impl Into<String>, value: &str) -> Cause {
        Cause::valued(Reason::Duplicate, field, value, "")
    }

    /// `Unsupported value: value: supported values: "A", "B"`
    pub fn not_supported(field: impl Into<String>, value: &str, allowed: &[String]) -> Cause {
        let detail = format!("supported values: {}", allowed.join(", "));
        Cause::valued(Reason::NotSupported, field, value, &detail)
    }

    pub(crate) fn plain(reason: Reason, field: impl Into<String>, detail: &str) -> Cause {
        let message = match detail {
            "" => reason.words().to_owned(),
            _ => format!("{}: {detail}", reason.words()),
        };
        Cause {
            reason,
            field: field.into(),
            message,
        }
    }

    pub(crate) fn valued(
        reason: Reason,
        field: impl Into<String>,
        value: &str,
        detail: &str,
    ) -> Cause {
        let message = match detail {
            "" => format!("{}: {value}", reason.words()),
            _ => format!("{}: {value}: {detail}", reason.words()),
        };
        Cause {
            reason,
            field: field.into(),
            message,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The message of a 422 `Status`: `Device.devices.kubeedge.io "x" is invalid: …`, several
/// causes in brackets. `kind` is `Kind.group`, or the bare kind in the core group.
pub fn invalid_message(kind: &str, name: &str, causes: &[Cause]) -> String {
    let lines: Vec<String> = causes.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => format!("{kind} {name:?} is invalid: {one}"),
        _ => format!("{kind} {name:?} is invalid: [{}]", lines.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_causes_are_put_in_brackets() {
        let a = Cause::required("spec.a", "");
        let b = Cause::not_supported("spec.b", "\"X\"", &["\"Y\"".into(), "\"Z\"".into()]);
        assert_eq!(
            invalid_message("T.g.io", "n", &[a.clone(), b]),
            r#"T.g.io "n" is invalid: [spec.a: Required value, spec.b: Unsupported value: "X": supported values: "Y", "Z"]"#
        );
        assert_eq!(
            invalid_message("Pod", "n", &[a]),
            r#"Pod "n" is invalid: spec.a: Required value"#
        );
    }
}
