//! What a column holds, as its declaration says.
//!
//! SQLite keeps any value in any column; the declared type is only a name, from which it takes an affinity. Here a
//! declaration becomes one [`Kind`], which fixes the Arrow type and how values are stored. The declarations that Tributary
//! writes are chosen so that the affinity changes no value, and so that they read back as the same kind.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, ColumnType, Error, Result};

/// The dialect that field metadata names.
pub const DIALECT: &str = "sqlite";

/// A double keeps this many decimal digits; so does a column of NUMERIC affinity.
const DIGITS_OF_DOUBLE: u8 = 15;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0 or 1.
    Boolean,
    /// Any of Arrow's integers but `UInt64`, which SQLite's signed 64 bits cannot hold.
    Integer(DataType),
    /// `UInt64` as its digits.
    Unsigned64,
    Float32,
    Float64,
    /// As its digits where `text`, otherwise as a number.
    Decimal {
        precision: u8,
        scale: i8,
        text: bool,
    },
    /// Where `numbers`, a stored number is taken as its text; otherwise it contradicts the declaration.
    Text {
        numbers: bool,
    },
    Json,
    Uuid,
    Blob,
    Date(Stored),
    Timestamp {
        unit: TimeUnit,
        zoned: bool,
        stored: Stored,
    },
    Time(TimeUnit),
    Interval,
}

/// How a date or timestamp is stored, as SQLite's own functions know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// ISO 8601 text.
    Iso,
    /// Seconds, milliseconds or microseconds since 1970.
    Unix(TimeUnit),
    /// Days since noon of 24 November 4714 BC.
    Julian,
}

/// SQLite's rule for what a declared type does to values that are stored under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Kind {
    /// The kind that a declaration in a table stands for: a known name, or what its affinity suggests.
    pub fn of_declaration(declared: &str) -> Self {
        let declaration = Declaration::parse(declared);
        declaration.kind().unwrap_or_else(|| match declaration.affinity() {
            Affinity::Integer => Kind::Integer(DataType::Int64),
            Affinity::Text => Kind::Text { numbers: false },
            Affinity::Real => Kind::Float64,
            Affinity::Blob if !declaration.name.is_empty() => Kind::Blob,
            Affinity::Blob | Affinity::Numeric => Kind::Text { numbers: true },
        })
    }

    /// The kind that a user names in the settings; `None` when it is no name that is known.
    pub fn of_setting(text: &str) -> Option<Self> {
        let lower = text.trim().to_lowercase();
        let (name, stored) = match lower.rsplit_once(' ') {
            Some((name, "iso")) => (name, Some(Stored::Iso)),
            Some((name, "unix")) => (name, Some(Stored::Unix(TimeUnit::Second))),
            Some((name, "unix_ms")) => (name, Some(Stored::Unix(TimeUnit::Millisecond))),
            Some((name, "unix_us")) => (name, Some(Stored::Unix(TimeUnit::Microsecond))),
            Some((name, "julian")) => (name, Some(Stored::Julian)),
            _ => (lower.as_str(), None),
        };
        let declaration = Declaration::parse(name);
        let kind = match declaration.kind() {
            Some(kind) => kind,
            // Whoever says text for a column of numbers wants their text.
            None if declaration.affinity() == Affinity::Text => Kind::Text { numbers: true },
            None => return None,
        };
        match (kind, stored) {
            (kind, None) => Some(kind),
            (Kind::Date(_), Some(stored)) => Some(Kind::Date(stored)),
            (Kind::Timestamp { unit, zoned, .. }, Some(stored)) => Some(Kind::Timestamp { unit, zoned, stored }),
            (_, Some(_)) => None,
        }
    }

    /// The kind that a destination column of this field gets.
    pub fn of_field(field: &Field) -> Result<Self> {
        match field.logical() {
            Some(Logical::Json) => return Ok(Kind::Json),
            Some(Logical::Uuid) => return Ok(Kind::Uuid),
            None => {}
        }
        Self::of_type(field.data_type()).ok_or_else(|| {
            let hint = match field.data_type() {
                DataType::Duration(_) => "cast it to a number or an interval with `columns: {… cast: …}`",
                t if t.is_nested() => "keep it as JSON with `columns: {… nested: json}`, or make it a child table",
                _ => "cast it with `columns: {… cast: …}`, or leave it out with `select:`",
            };
            Error::new(Code::Unsupported, "SQLite has no way to hold the column's type")
                .detail(format!("{} is {}", field.name(), field.data_type()))
                .hint(hint)
        })
    }

    fn of_type(t: &DataType) -> Option<Self> {
        use DataType as D;
        let timestamp = |unit, zoned| Kind::Timestamp { unit, zoned, stored: Stored::Iso };
        let decimal = |precision: u8, scale: i8| {
            let whole_number = scale == 0 && precision <= 18;
            let text = precision > DIGITS_OF_DOUBLE && !whole_number;
            (scale >= 0).then_some(Kind::Decimal { precision, scale, text })
        };
        Some(match t {
            D::Null | D::Utf8 | D::LargeUtf8 | D::Utf8View => Kind::Text { numbers: false },
            D::Boolean => Kind::Boolean,
            D::UInt64 => Kind::Unsigned64,
            t if t.is_integer() => Kind::Integer(t.clone()),
            D::Float16 | D::Float32 => Kind::Float32,
            D::Float64 => Kind::Float64,
            D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) => decimal(*p, *s)?,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Kind::Blob,
            D::Date32 => Kind::Date(Stored::Iso),
            D::Date64 => timestamp(TimeUnit::Millisecond, false),
            D::Timestamp(unit, zone) => timestamp(*unit, zone.is_some()),
            D::Time32(unit) | D::Time64(unit) => Kind::Time(*unit),
            D::Interval(_) => Kind::Interval,
            D::Dictionary(_, value) => Self::of_type(value)?,
            _ => return None,
        })
    }

    /// The declaration that Tributary writes for this kind. [`Kind::of_declaration`] reads it back.
    pub fn declaration(&self) -> String {
        let with_digits = |name: &str, unit: TimeUnit| match unit {
            TimeUnit::Second => format!("{name}(0)"),
            TimeUnit::Millisecond => format!("{name}(3)"),
            TimeUnit::Microsecond => name.to_owned(),
            TimeUnit::Nanosecond => format!("{name}(9)"),
        };
        match self {
            Kind::Boolean => "BOOLEAN".to_owned(),
            Kind::Integer(t) => match t {
                DataType::Int8 => "INT1",
                DataType::Int16 => "INT2",
                DataType::Int32 => "INT4",
                DataType::UInt8 => "UINT1",
                DataType::UInt16 => "UINT2",
                DataType::UInt32 => "UINT4",
                _ => "INTEGER",
            }
            .to_owned(),
            // No "INT" may stand in it, or the digits would become a double.
            Kind::Unsigned64 => "TEXT_U64".to_owned(),
            Kind::Float32 => "FLOAT4".to_owned(),
            Kind::Float64 => "DOUBLE".to_owned(),
            Kind::Decimal { precision, scale, text: true } => format!("DECIMAL_TEXT({precision},{scale})"),
            Kind::Decimal { precision, scale, text: false } => format!("DECIMAL({precision},{scale})"),
            Kind::Text { .. } => "TEXT".to_owned(),
            // Plain JSON would have NUMERIC affinity and make a number of `1.50`.
            Kind::Json => "JSON_TEXT".to_owned(),
            Kind::Uuid => "UUID".to_owned(),
            Kind::Blob => "BLOB".to_owned(),
            Kind::Date(_) => "DATE".to_owned(),
            Kind::Timestamp { unit, zoned: false, .. } => with_digits("TIMESTAMP", *unit),
            Kind::Timestamp { unit, zoned: true, .. } => with_digits("TIMESTAMPTZ", *unit),
            Kind::Time(unit) => with_digits("TIME", *unit),
            Kind::Interval => "INTERVAL".to_owned(),
        }
    }

    pub fn column_type(&self) -> ColumnType {
        match self {
            Kind::Float32 | Kind::Float64 => ColumnType::lossy(self.declaration(), "SQLite has no NaN; rows with one are rejected"),
            _ => ColumnType::exact(self.declaration()),
        }
    }

    pub fn data_type(&self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Integer(t) => t.clone(),
            Kind::Unsigned64 => DataType::UInt64,
            Kind::Float32 => DataType::Float32,
            Kind::Float64 => DataType::Float64,
            Kind::Decimal { precision, scale, .. } if *precision <= 38 => DataType::Decimal128(*precision, *scale),
            Kind::Decimal { precision, scale, .. } => DataType::Decimal256(*precision, *scale),
            Kind::Text { .. } | Kind::Json => DataType::Utf8,
            Kind::Uuid => DataType::FixedSizeBinary(16),
            Kind::Blob => DataType::Binary,
            Kind::Date(_) => DataType::Date32,
            Kind::Timestamp { unit, zoned, .. } => DataType::Timestamp(*unit, zoned.then(|| "UTC".into())),
            Kind::Time(unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => DataType::Time32(*unit),
            Kind::Time(unit) => DataType::Time64(*unit),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        }
    }

    /// The Arrow field of a column of this kind that is declared as `declared`.
    pub fn field(&self, name: &str, nullable: bool, declared: &str) -> Field {
        let field = Field::new(name, self.data_type(), nullable);
        let field = if declared.is_empty() { field } else { field.with_native(DIALECT, declared) };
        match self {
            Kind::Json => field.with_logical(Logical::Json),
            Kind::Uuid => field.with_logical(Logical::Uuid),
            Kind::Text { numbers: true } => field.with_lossy("its declaration names no type, so numbers in it become text"),
            _ => field,
        }
    }

    /// Stored values sort as the values do, so that a cursor can run on them.
    pub fn sorts(&self) -> bool {
        match self {
            Kind::Boolean | Kind::Blob | Kind::Json | Kind::Interval | Kind::Unsigned64 | Kind::Uuid => false,
            Kind::Decimal { text, .. } => !text,
            Kind::Text { numbers } => !numbers,
            _ => true,
        }
    }
}

/// Text stays text in a column that is declared so; elsewhere SQLite makes numbers of what looks like one.
pub fn keeps_text(declared: &str) -> bool {
    matches!(Declaration::parse(declared).affinity(), Affinity::Text | Affinity::Blob)
}

/// A declared type, taken apart: `TIMESTAMP(3) WITH TIME ZONE`.
struct Declaration {
    /// Upper case, one space between words, without what stood in parentheses.
    name: String,
    args: Vec<u8>,
}

impl Declaration {
    fn parse(declared: &str) -> Self {
        let upper = declared.to_uppercase();
        let (before, args, after) = match (upper.find('('), upper.rfind(')')) {
            (Some(open), Some(close)) if open < close => (&upper[..open], &upper[open + 1..close], &upper[close + 1..]),
            _ => (upper.as_str(), "", ""),
        };
        let words: Vec<&str> = before.split_whitespace().chain(after.split_whitespace()).collect();
        Self { name: words.join(" "), args: args.split(',').filter_map(|a| a.trim().parse().ok()).collect() }
    }

    /// <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>
    fn affinity(&self) -> Affinity {
        let has = |parts: &[&str]| parts.iter().any(|p| self.name.contains(p));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if self.name.is_empty() || has(&["BLOB"]) {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    fn kind(&self) -> Option<Kind> {
        Some(match self.name.as_str() {
            "BOOLEAN" | "BOOL" => Kind::Boolean,
            "INTEGER" | "INT" | "BIGINT" | "INT8" => Kind::Integer(DataType::Int64),
            "MEDIUMINT" | "INT4" => Kind::Integer(DataType::Int32),
            // Signed in some systems and unsigned in others; this holds both.
            "SMALLINT" | "INT2" | "TINYINT" => Kind::Integer(DataType::Int16),
            "INT1" => Kind::Integer(DataType::Int8),
            "UINT1" => Kind::Integer(DataType::UInt8),
            "UINT2" => Kind::Integer(DataType::UInt16),
            "UINT4" => Kind::Integer(DataType::UInt32),
            "TEXT_U64" => Kind::Unsigned64,
            "REAL" | "DOUBLE" | "DOUBLE PRECISION" | "FLOAT" | "FLOAT8" => Kind::Float64,
            "FLOAT4" => Kind::Float32,
            "DECIMAL" | "NUMERIC" | "DEC" | "NUMBER" => self.decimal(false)?,
            "DECIMAL_TEXT" => self.decimal(true)?,
            "JSON" | "JSON_TEXT" => Kind::Json,
            "UUID" | "GUID" | "UNIQUEIDENTIFIER" => Kind::Uuid,
            "BLOB" | "BYTEA" | "BINARY" | "VARBINARY" => Kind::Blob,
            "DATE" => Kind::Date(Stored::Iso),
            "TIMESTAMP" | "DATETIME" | "TIMESTAMP WITHOUT TIME ZONE" => self.timestamp(false),
            "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" | "DATETIMEOFFSET" => self.timestamp(true),
            "TIME" | "TIME WITHOUT TIME ZONE" => Kind::Time(self.unit()),
            "INTERVAL" => Kind::Interval,
            _ => return None,
        })
    }

    fn decimal(&self, text: bool) -> Option<Kind> {
        let (precision, scale) = match self.args[..] {
            [precision, scale] => (precision, scale),
            [precision] => (precision, 0),
            // Wide enough for each integer and nearly every double that SQLite holds.
            _ => (38, 18),
        };
        let holds = (1..=76).contains(&precision) && scale <= precision;
        holds.then_some(Kind::Decimal { precision, scale: scale as i8, text })
    }

    fn timestamp(&self, zoned: bool) -> Kind {
        Kind::Timestamp { unit: self.unit(), zoned, stored: Stored::Iso }
    }

    fn unit(&self) -> TimeUnit {
        match self.args[..] {
            [0] => TimeUnit::Second,
            [1..=3] => TimeUnit::Millisecond,
            [digits] if digits > 6 => TimeUnit::Nanosecond,
            _ => TimeUnit::Microsecond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations() {
        use DataType as D;
        let cases = [
            ("INTEGER", D::Int64),
            ("unsigned big int", D::Int64),
            ("INT2", D::Int16),
            ("bool", D::Boolean),
            ("DECIMAL(15, 2)", D::Decimal128(15, 2)),
            ("numeric(9)", D::Decimal128(9, 0)),
            ("NUMERIC", D::Decimal128(38, 18)),
            ("DECIMAL_TEXT(60,10)", D::Decimal256(60, 10)),
            ("double  precision", D::Float64),
            ("VARCHAR(255)", D::Utf8),
            ("native character(70)", D::Utf8),
            ("BLOB", D::Binary),
            ("DATE", D::Date32),
            ("datetime", D::Timestamp(TimeUnit::Microsecond, None)),
            ("TIMESTAMP(3) WITH TIME ZONE", D::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
            ("TIME(0)", D::Time32(TimeUnit::Second)),
            ("GUID", D::FixedSizeBinary(16)),
            ("STRING", D::Utf8),
            ("", D::Utf8),
            ("POINT", D::Int64),
        ];
        for (declared, expected) in cases {
            assert_eq!(Kind::of_declaration(declared).data_type(), expected, "{declared}");
        }
    }

    #[test]
    fn what_is_declared_reads_back() {
        use DataType as D;
        let mut types = vec![
            D::Boolean,
            D::Int8,
            D::Int16,
            D::Int32,
            D::Int64,
            D::UInt8,
            D::UInt16,
            D::UInt32,
            D::UInt64,
            D::Float32,
            D::Float64,
            D::Utf8,
            D::Binary,
            D::Date32,
            D::Decimal128(15, 2),
            D::Decimal128(18, 0),
            D::Decimal128(38, 18),
            D::Decimal256(76, 0),
            D::Interval(IntervalUnit::MonthDayNano),
            D::Time32(TimeUnit::Second),
            D::Time32(TimeUnit::Millisecond),
            D::Time64(TimeUnit::Microsecond),
            D::Time64(TimeUnit::Nanosecond),
        ];
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            types.extend([D::Timestamp(unit, None), D::Timestamp(unit, Some("UTC".into()))]);
        }
        for t in types {
            let kind = Kind::of_field(&Field::new("c", t.clone(), true)).unwrap();
            assert_eq!(Kind::of_declaration(&kind.declaration()), kind, "{t}");
            assert_eq!(kind.data_type(), t);
        }
        for logical in [Logical::Json, Logical::Uuid] {
            let kind = Kind::of_field(&Field::new("c", D::Utf8, true).with_logical(logical)).unwrap();
            assert_eq!(Kind::of_declaration(&kind.declaration()), kind);
        }
    }

    #[test]
    fn settings() {
        let timestamp = |stored| Kind::Timestamp { unit: TimeUnit::Microsecond, zoned: false, stored };
        let cases = [
            ("timestamp unix_ms", Some(timestamp(Stored::Unix(TimeUnit::Millisecond)))),
            ("Timestamp Julian", Some(timestamp(Stored::Julian))),
            ("date", Some(Kind::Date(Stored::Iso))),
            ("text", Some(Kind::Text { numbers: true })),
            ("integer unix", None),
            ("txet", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Kind::of_setting(text), expected, "{text}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused_with_a_way_out() {
        let list = DataType::new_list(DataType::Int64, true);
        for t in [list, DataType::Duration(TimeUnit::Second), DataType::Decimal128(5, -2)] {
            let error = Kind::of_field(&Field::new("c", t, true)).unwrap_err();
            assert_eq!(error.code(), Code::Unsupported);
            assert!(error.hint_text().unwrap().contains("columns:"));
        }
    }
}
