//! How two column types relate: whether values of one fit into the other without loss.

use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::logical::FieldExt;

/// What it takes to store `incoming` values in a column of type `existing`.
#[derive(Clone, Debug, PartialEq)]
pub enum Relation {
    /// The same type.
    Same,
    /// Each incoming value has exactly one equal value of the existing type: a cast suffices.
    Fits,
    /// The column can become this type, which holds both without loss.
    Widens(DataType),
    /// Nothing holds both but text.
    Clashes,
}

pub fn relate(existing: &Field, incoming: &Field) -> Relation {
    let (e, i) = (existing.data_type(), incoming.data_type());
    if e == i {
        // Equal storage but another meaning (text that is JSON now): the stored values stay what they were.
        return if existing.logical() == incoming.logical() { Relation::Same } else { Relation::Fits };
    }
    if fits(i, e) {
        return Relation::Fits;
    }
    match widened(e, i) {
        Some(wide) => Relation::Widens(wide),
        None => Relation::Clashes,
    }
}

/// Whether every value of `from` has an equal value in `to`.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    if matches!(from, Null) || is_text(from) && is_text(to) || is_binary(from) && is_binary(to) {
        return true;
    }
    if let (Some((fs, fb)), Some((ts, tb))) = (integer(from), integer(to)) {
        return match (fs, ts) {
            (true, true) | (false, false) => fb <= tb,
            (false, true) => fb < tb,
            (true, false) => false,
        };
    }
    match (from, to) {
        (Float32 | Float16, Float64) | (Float16, Float32) => true,
        (Decimal128(fp, fs) | Decimal256(fp, fs), Decimal128(tp, ts) | Decimal256(tp, ts)) => {
            ts >= fs && i16::from(*tp) - i16::from(*ts) >= i16::from(*fp) - i16::from(*fs)
        }
        (_, Decimal128(tp, ts) | Decimal256(tp, ts)) if integer(from).is_some() => i16::from(*tp) - i16::from(*ts) >= decimal_digits(from),
        // Integers that a double holds exactly.
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Float64) => true,
        (Date32, Timestamp(_, None)) => true,
        (Timestamp(fu, fz), Timestamp(tu, tz)) => fz.is_some() == tz.is_some() && unit(*fu) <= unit(*tu),
        (Time32(fu), Time64(tu)) | (Time64(fu), Time64(tu)) | (Time32(fu), Time32(tu)) => unit(*fu) <= unit(*tu),
        (Dictionary(_, value), _) => value.as_ref() == to || fits(value, to),
        (List(f) | LargeList(f), List(t) | LargeList(t)) => f.data_type() == t.data_type() || fits(f.data_type(), t.data_type()),
        _ => false,
    }
}

/// The smallest type that holds both, where that is not text.
fn widened(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if fits(a, b) {
        return Some(b.clone());
    }
    match (a, b) {
        (Timestamp(ua, za), Timestamp(ub, zb)) if za.is_some() == zb.is_some() => {
            Some(Timestamp(if unit(*ua) > unit(*ub) { *ua } else { *ub }, za.clone()))
        }
        (Decimal128(..) | Decimal256(..), _) | (_, Decimal128(..) | Decimal256(..)) => {
            let ((wa, sa), (wb, sb)) = (decimal_shape(a)?, decimal_shape(b)?);
            let (whole, scale) = (wa.max(wb), sa.max(sb));
            match whole + scale {
                p @ ..=38 => Some(Decimal128(p as u8, scale as i8)),
                p @ ..=76 => Some(Decimal256(p as u8, scale as i8)),
                _ => None,
            }
        }
        (UInt64, _) | (_, UInt64) if integer(a).is_some() && integer(b).is_some() => Some(Decimal128(20, 0)),
        _ => match (integer(a), integer(b)) {
            // Signed and unsigned of one width: the next signed one.
            (Some((_, wa)), Some((_, wb))) => match wa.max(wb) {
                8 => Some(Int16),
                16 => Some(Int32),
                _ => Some(Int64),
            },
            _ => None,
        },
    }
}

/// Signedness and width in bits.
fn integer(t: &DataType) -> Option<(bool, u8)> {
    use DataType::*;
    Some(match t {
        Int8 => (true, 8),
        Int16 => (true, 16),
        Int32 => (true, 32),
        Int64 => (true, 64),
        UInt8 => (false, 8),
        UInt16 => (false, 16),
        UInt32 => (false, 32),
        UInt64 => (false, 64),
        _ => return None,
    })
}

/// Decimal digits that the widest integer of this type needs.
fn decimal_digits(t: &DataType) -> i16 {
    match integer(t) {
        Some((_, 8)) => 3,
        Some((_, 16)) => 5,
        Some((_, 32)) => 10,
        Some((true, _)) => 19,
        _ => 20,
    }
}

/// Digits before and after the point.
fn decimal_shape(t: &DataType) -> Option<(i16, i16)> {
    match t {
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => Some((i16::from(*p) - i16::from(*s), i16::from(*s))),
        _ if integer(t).is_some() => Some((decimal_digits(t), 0)),
        _ => None,
    }
}

fn unit(u: TimeUnit) -> u8 {
    match u {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn relations() {
        let zoned = |u| Timestamp(u, Some("UTC".into()));
        let cases = [
            (Int64, Int32, Relation::Fits),
            (Int32, Int64, Relation::Widens(Int64)),
            (Int64, UInt64, Relation::Widens(Decimal128(20, 0))),
            (Int32, UInt32, Relation::Widens(Int64)),
            (Float64, Float32, Relation::Fits),
            (Int64, Float64, Relation::Clashes),
            (Decimal128(10, 2), Decimal128(12, 2), Relation::Widens(Decimal128(12, 2))),
            (Decimal128(10, 2), Decimal128(10, 4), Relation::Widens(Decimal128(12, 4))),
            (Decimal128(10, 2), Int64, Relation::Widens(Decimal128(21, 2))),
            (Int64, Utf8, Relation::Clashes),
            (Utf8, LargeUtf8, Relation::Fits),
            (Timestamp(TimeUnit::Microsecond, None), Date32, Relation::Fits),
            // A zone is a meaning, not a format: never converted silently.
            (Timestamp(TimeUnit::Microsecond, None), zoned(TimeUnit::Microsecond), Relation::Clashes),
            (zoned(TimeUnit::Millisecond), zoned(TimeUnit::Nanosecond), Relation::Widens(zoned(TimeUnit::Nanosecond))),
        ];
        for (existing, incoming, expected) in cases {
            let got = relate(&Field::new("c", existing.clone(), true), &Field::new("c", incoming.clone(), true));
            assert_eq!(got, expected, "{existing} <- {incoming}");
        }
    }
}
