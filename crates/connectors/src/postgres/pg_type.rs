//! PostgreSQL's types, and the Arrow types that carry their values.
//!
//! One table says both ways: discovery, the reading of existing tables and the making of new ones all go through [`PgType::parse`], which
//! reads a type as `format_type` spells it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trib_core::logical::{FieldExt, Logical};

/// What stands before a native type in a field's annotation.
pub const DIALECT: &str = "postgres";

/// A column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgType {
    /// As `format_type` spells it: `numeric(15,2)`, `character(10)[]`.
    pub name: String,
    /// Of the value, or of an array's elements.
    pub kind: Kind,
    pub array: bool,
    /// Of the value, or of an array's elements; 0 for types that are not built in.
    pub oid: u32,
}

/// How values of a type stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// Precision and scale, where they are declared.
    Numeric(Option<(i32, i32)>),
    /// The most characters that a value may have, where that is declared.
    Text(Option<usize>),
    Json,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    /// Everything else travels as text and is cast by the server.
    Spelled,
}

/// The user's choices about values that Arrow's types have no place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub special: SpecialNumberRule,
    pub infinity: InfinityRule,
    pub arrays: ArrayRule,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialNumberRule {
    /// The row is rejected, with the reason.
    #[default]
    Reject,
    /// The value becomes NULL.
    Null,
    /// All numeric columns travel as text.
    Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InfinityRule {
    /// The row is rejected, with the reason.
    #[default]
    Reject,
    /// The value becomes NULL.
    Null,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArrayRule {
    /// As lists. Rows with an array of more than one dimension are rejected.
    #[default]
    List,
    /// As PostgreSQL's text form, `{1,2}`, which holds every array.
    Text,
}

/// Built-in types by their formal name, with their oid (`pg_type.dat` of PostgreSQL's source).
const BUILT_IN: [(&str, Kind, u32); 57] = [
    ("boolean", Kind::Bool, 16),
    ("smallint", Kind::Int2, 21),
    ("integer", Kind::Int4, 23),
    ("bigint", Kind::Int8, 20),
    ("oid", Kind::Oid, 26),
    ("real", Kind::Float4, 700),
    ("double precision", Kind::Float8, 701),
    ("numeric", Kind::Numeric(None), 1700),
    ("text", Kind::Text(None), 25),
    ("character varying", Kind::Text(None), 1043),
    ("character", Kind::Text(None), 1042),
    ("bpchar", Kind::Text(None), 1042),
    ("name", Kind::Text(None), 19),
    ("json", Kind::Json, 114),
    ("jsonb", Kind::Jsonb, 3802),
    ("bytea", Kind::Bytea, 17),
    ("date", Kind::Date, 1082),
    ("time without time zone", Kind::Time, 1083),
    ("timestamp without time zone", Kind::Timestamp, 1114),
    ("timestamp with time zone", Kind::TimestampTz, 1184),
    ("interval", Kind::Interval, 1186),
    ("uuid", Kind::Uuid, 2950),
    ("time with time zone", Kind::Spelled, 1266),
    ("\"char\"", Kind::Spelled, 18),
    ("inet", Kind::Spelled, 869),
    ("cidr", Kind::Spelled, 650),
    ("macaddr", Kind::Spelled, 829),
    ("macaddr8", Kind::Spelled, 774),
    ("bit", Kind::Spelled, 1560),
    ("bit varying", Kind::Spelled, 1562),
    ("money", Kind::Spelled, 790),
    ("xml", Kind::Spelled, 142),
    ("point", Kind::Spelled, 600),
    ("line", Kind::Spelled, 628),
    ("lseg", Kind::Spelled, 601),
    ("box", Kind::Spelled, 603),
    ("path", Kind::Spelled, 602),
    ("polygon", Kind::Spelled, 604),
    ("circle", Kind::Spelled, 718),
    ("tsvector", Kind::Spelled, 3614),
    ("tsquery", Kind::Spelled, 3615),
    ("jsonpath", Kind::Spelled, 4072),
    ("pg_lsn", Kind::Spelled, 3220),
    ("int4range", Kind::Spelled, 3904),
    ("int8range", Kind::Spelled, 3926),
    ("numrange", Kind::Spelled, 3906),
    ("tsrange", Kind::Spelled, 3908),
    ("tstzrange", Kind::Spelled, 3910),
    ("daterange", Kind::Spelled, 3912),
    ("int4multirange", Kind::Spelled, 4451),
    ("int8multirange", Kind::Spelled, 4536),
    ("nummultirange", Kind::Spelled, 4532),
    ("tsmultirange", Kind::Spelled, 4533),
    ("tstzmultirange", Kind::Spelled, 4534),
    ("datemultirange", Kind::Spelled, 4535),
    ("tid", Kind::Spelled, 27),
    ("xid", Kind::Spelled, 28),
];

impl PgType {
    /// Reads a type as `format_type` spells it. Never fails: what is not built in travels as text.
    pub fn parse(name: &str) -> Self {
        let (element, array) = match name.strip_suffix("[]") {
            Some(element) => (element, true),
            None => (name, false),
        };
        // `timestamp(3) without time zone`, `numeric(15,2)`, `interval day to second(3)`.
        let (base, arguments) = match element.split_once('(') {
            Some((before, rest)) => {
                let (arguments, after) = rest.split_once(')').unwrap_or((rest, ""));
                (format!("{before}{after}"), arguments)
            }
            None => (element.to_owned(), ""),
        };
        let base = if base.starts_with("interval") { "interval" } else { base.as_str() };
        let Some((_, kind, oid)) = BUILT_IN.iter().find(|(formal, ..)| *formal == base) else {
            return Self { name: name.to_owned(), kind: Kind::Spelled, array, oid: 0 };
        };
        let mut numbers = arguments.split(',').map_while(|n| n.trim().parse::<i32>().ok());
        let kind = match (kind, numbers.next()) {
            (Kind::Numeric(_), Some(precision)) => Kind::Numeric(Some((precision, numbers.next().unwrap_or(0)))),
            (Kind::Text(_), Some(most)) => Kind::Text(usize::try_from(most).ok()),
            (Kind::Text(_), None) if base == "character" => Kind::Text(Some(1)),
            _ => *kind,
        };
        Self { name: name.to_owned(), kind, array, oid: *oid }
    }

    pub fn is_built_in(&self) -> bool {
        self.oid != 0
    }

    /// The Arrow type of a column of this type.
    pub fn arrow(&self, rules: Rules) -> DataType {
        match (self.array, rules.arrays) {
            (false, _) => self.kind.arrow(rules),
            (true, ArrayRule::List) => DataType::List(Arc::new(Field::new("item", self.kind.arrow(rules), true))),
            (true, ArrayRule::Text) => DataType::Utf8,
        }
    }

    /// The column as a field, with what Arrow's type leaves out as annotations.
    pub fn field(&self, name: &str, nullable: bool, rules: Rules) -> Field {
        let may_become_null = match self.kind {
            Kind::Numeric(_) => rules.special == SpecialNumberRule::Null,
            Kind::Date | Kind::Timestamp | Kind::TimestampTz | Kind::Interval => rules.infinity == InfinityRule::Null,
            _ => false,
        };
        let field = Field::new(name, self.arrow(rules), nullable || may_become_null).with_native(DIALECT, &self.name);
        match self.kind {
            _ if self.array => field,
            Kind::Uuid => field.with_logical(Logical::Uuid),
            Kind::Json | Kind::Jsonb => field.with_logical(Logical::Json),
            _ => field,
        }
    }

    /// Whether the field's values are those that a column of this type would have given, under whatever rules.
    pub fn explains(&self, field: &Field) -> bool {
        let rules = [
            Rules::default(),
            Rules { special: SpecialNumberRule::Text, ..Rules::default() },
            Rules { arrays: ArrayRule::Text, ..Rules::default() },
        ];
        rules.into_iter().any(|rules| same_values(&self.arrow(rules), field.data_type()))
    }

    /// The cast that a column needs in a query so that its values come in a form that can be decoded; empty for most.
    pub fn cast(&self, rules: Rules) -> &'static str {
        match (self.array, self.kind) {
            (true, _) if rules.arrays == ArrayRule::Text => "::text",
            (true, Kind::Spelled) => "::text[]",
            (false, Kind::Spelled) => "::text",
            _ => "",
        }
    }
}

impl Kind {
    fn arrow(self, rules: Rules) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 => DataType::Int64,
            Kind::Oid => DataType::UInt32,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Numeric(Some((precision @ 1..=76, scale)))
                if (0..=precision).contains(&scale) && rules.special != SpecialNumberRule::Text =>
            {
                match precision {
                    ..=38 => DataType::Decimal128(precision as u8, scale as i8),
                    _ => DataType::Decimal256(precision as u8, scale as i8),
                }
            }
            Kind::Numeric(_) | Kind::Text(_) | Kind::Json | Kind::Jsonb | Kind::Spelled => DataType::Utf8,
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Uuid => DataType::FixedSizeBinary(16),
        }
    }
}

/// Equal but for the names of list items and the width of offsets.
fn same_values(a: &DataType, b: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeList, LargeUtf8, List, Utf8, Utf8View};
    match (a, b) {
        (Utf8, LargeUtf8 | Utf8View) | (Binary, LargeBinary | BinaryView) => true,
        (List(a), List(b) | LargeList(b)) => same_values(a.data_type(), b.data_type()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_as_the_server_spells_them() {
        let cases = [
            ("numeric(15,2)", Kind::Numeric(Some((15, 2))), false),
            ("numeric", Kind::Numeric(None), false),
            ("numeric(5,-2)", Kind::Numeric(Some((5, -2))), false),
            ("character varying(10)[]", Kind::Text(Some(10)), true),
            ("character(3)", Kind::Text(Some(3)), false),
            ("timestamp(3) with time zone", Kind::TimestampTz, false),
            ("interval day to second(3)", Kind::Interval, false),
            ("interval(2)", Kind::Interval, false),
            ("time(0) with time zone", Kind::Spelled, false),
            ("mood[]", Kind::Spelled, true),
            ("geometry(Point,4326)", Kind::Spelled, false),
        ];
        for (name, kind, array) in cases {
            let parsed = PgType::parse(name);
            assert_eq!((parsed.kind, parsed.array), (kind, array), "{name}");
        }
        assert!(!PgType::parse("mood").is_built_in());
    }

    #[test]
    fn decimals_that_arrow_has_not_are_text() {
        for (name, expected) in [
            ("numeric(38,38)", DataType::Decimal128(38, 38)),
            ("numeric(76,0)", DataType::Decimal256(76, 0)),
            ("numeric(77,0)", DataType::Utf8),
            ("numeric(5,-2)", DataType::Utf8),
            ("numeric(2,5)", DataType::Utf8),
            ("numeric", DataType::Utf8),
        ] {
            assert_eq!(PgType::parse(name).arrow(Rules::default()), expected, "{name}");
        }
    }
}
