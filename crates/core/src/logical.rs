//! What Arrow's types alone do not say, kept as field metadata.
//!
//! Rows travel as Arrow. Where two systems mean more than the Arrow type tells, the source says so on
//! the field, and a destination that knows the meaning keeps it. Nothing depends on it being there.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};

/// Arrow's own key for extension types.
const EXTENSION: &str = "ARROW:extension:name";
/// The type in the source's own words, prefixed by its dialect: `postgres:character(10)`.
const NATIVE: &str = "trib:native";
/// Why this column's values may differ from the source's, for the plan to show.
const LOSSY: &str = "trib:lossy";

/// Meanings that more than one system shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    /// `FixedSizeBinary(16)`, or `Utf8` in the 8-4-4-4-12 form.
    Uuid,
    /// `Utf8` holding one JSON value.
    Json,
}

impl Logical {
    fn extension(self) -> &'static str {
        match self {
            Logical::Uuid => "arrow.uuid",
            Logical::Json => "arrow.json",
        }
    }
}

/// Builder-like access to a field's annotations.
pub trait FieldExt: Sized {
    #[must_use]
    fn with_logical(self, logical: Logical) -> Self;
    #[must_use]
    fn with_native(self, dialect: &str, native: &str) -> Self;
    #[must_use]
    fn with_lossy(self, why: &str) -> Self;
    fn logical(&self) -> Option<Logical>;
    /// The type in `dialect`'s own words, when the field came from there.
    fn native(&self, dialect: &str) -> Option<&str>;
    /// The type in the words of whatever source it came from.
    fn declared(&self) -> Option<&str>;
    fn lossy(&self) -> Option<&str>;
}

impl FieldExt for Field {
    fn with_logical(self, logical: Logical) -> Self {
        annotated(self, EXTENSION, logical.extension())
    }

    fn with_native(self, dialect: &str, native: &str) -> Self {
        annotated(self, NATIVE, &format!("{dialect}:{native}"))
    }

    fn with_lossy(self, why: &str) -> Self {
        annotated(self, LOSSY, why)
    }

    fn logical(&self) -> Option<Logical> {
        match (self.metadata().get(EXTENSION)?.as_str(), self.data_type()) {
            ("arrow.uuid", DataType::FixedSizeBinary(16) | DataType::Utf8) => Some(Logical::Uuid),
            ("arrow.json", DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => Some(Logical::Json),
            _ => None,
        }
    }

    fn native(&self, dialect: &str) -> Option<&str> {
        self.metadata().get(NATIVE)?.strip_prefix(dialect)?.strip_prefix(':')
    }

    fn declared(&self) -> Option<&str> {
        self.metadata().get(NATIVE)?.split_once(':').map(|(_, native)| native)
    }

    fn lossy(&self) -> Option<&str> {
        self.metadata().get(LOSSY).map(String::as_str)
    }
}

fn annotated(field: Field, key: &str, value: &str) -> Field {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.insert(key.to_owned(), value.to_owned());
    field.with_metadata(metadata)
}
