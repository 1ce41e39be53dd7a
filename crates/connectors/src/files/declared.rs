//! Types that a project declares for columns, in SQL's words.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, TimeUnit};
use trib_core::error::closest;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, Error, Result};

const NAMES: [&str; 20] = [
    "smallint",
    "integer",
    "int",
    "bigint",
    "real",
    "float",
    "double",
    "decimal",
    "numeric",
    "boolean",
    "text",
    "varchar",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "json",
    "uuid",
    "bytea",
    "jsonb",
];

/// `bigint`, `decimal(12, 2)`, `timestamp with time zone`, … as a nullable field.
pub fn field(column: &str, declared: &str) -> Result<Field> {
    let invalid = || {
        Error::new(Code::ConfigInvalid, "the declared type is not one that is known")
            .detail(format!("{declared:?}"))
            .setting(format!("columns.{column}"))
    };
    let lower = declared.trim().to_lowercase();
    let (name, arguments) = match lower.split_once('(') {
        Some((name, rest)) => {
            let (inside, after) = rest.split_once(')').ok_or_else(invalid)?;
            let numbers: Result<Vec<u8>> = inside.split(',').map(|n| n.trim().parse().map_err(|_| invalid())).collect();
            (format!("{}{}", name.trim_end(), after), numbers?)
        }
        None => (lower.clone(), Vec::new()),
    };
    let of = |t: DataType| Field::new(column, t, true);
    // Databases have microseconds; nanoseconds are asked for by `timestamp(9)`.
    let unit = match arguments.first() {
        Some(7..=9) => TimeUnit::Nanosecond,
        _ => TimeUnit::Microsecond,
    };
    Ok(match name.split_whitespace().collect::<Vec<_>>().join(" ").as_str() {
        "smallint" | "int2" => of(DataType::Int16),
        "integer" | "int" | "int4" => of(DataType::Int32),
        "bigint" | "int8" => of(DataType::Int64),
        "real" | "float4" => of(DataType::Float32),
        "double" | "double precision" | "float" | "float8" => of(DataType::Float64),
        "decimal" | "numeric" => match arguments.as_slice() {
            [p @ 1..=38] => of(DataType::Decimal128(*p, 0)),
            [p @ 1..=38, s] if s <= p => of(DataType::Decimal128(*p, *s as i8)),
            [] => return Err(invalid().hint("say how many digits: `decimal(18, 2)`")),
            _ => return Err(invalid().hint("a decimal has at most 38 digits")),
        },
        "boolean" | "bool" => of(DataType::Boolean),
        "text" | "string" | "varchar" | "char" | "character varying" | "character" => of(DataType::Utf8),
        "date" => of(DataType::Date32),
        "time" | "time without time zone" => of(DataType::Time64(unit)),
        "timestamp" | "datetime" | "timestamp without time zone" => of(DataType::Timestamp(unit, None)),
        "timestamptz" | "timestamp with time zone" => of(DataType::Timestamp(unit, Some("UTC".into()))),
        "json" | "jsonb" => of(DataType::Utf8).with_logical(Logical::Json),
        "uuid" => of(DataType::FixedSizeBinary(16)).with_logical(Logical::Uuid),
        "bytea" | "binary" | "blob" | "varbinary" => of(DataType::Binary),
        other => {
            let near = closest(other, NAMES);
            return Err(invalid().hint(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", NAMES.join(", ")),
            }));
        }
    })
}

/// All declared columns of a stream.
pub fn fields(columns: &BTreeMap<String, String>) -> Result<BTreeMap<String, Field>> {
    columns.iter().map(|(name, declared)| Ok((name.clone(), field(name, declared)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_sql() {
        let cases = [
            ("bigint", DataType::Int64),
            ("decimal(12,2)", DataType::Decimal128(12, 2)),
            ("NUMERIC ( 38 , 0 )", DataType::Decimal128(38, 0)),
            ("timestamp(9) with time zone", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
            ("varchar(20)", DataType::Utf8),
            ("Double  Precision", DataType::Float64),
        ];
        for (text, expected) in cases {
            assert_eq!(field("c", text).unwrap().data_type(), &expected, "{text}");
        }
        for (text, hint) in [
            ("bigin", "did you mean `bigint`?"),
            ("decimal", "say how many digits: `decimal(18, 2)`"),
            ("decimal(40,2)", "a decimal has at most 38 digits"),
        ] {
            assert_eq!(field("c", text).unwrap_err().hint_text(), Some(hint), "{text}");
        }
    }
}
