//! Rows that are passed on as they came.

use arrow::array::BinaryArray;
use arrow::buffer::OffsetBuffer;
use trib_core::Result;

use super::super::pg_type::{InfinityRule, Kind, PgType};
use super::rows::{Fields, Rows};
use super::value;

impl PgType {
    /// Whether it is easily seen that values of the type have a place in Arrow's types too. Only then may rows be passed on unread: the others would be rejected.
    pub fn is_plain(&self) -> bool {
        !self.array && !matches!(self.kind, Kind::Interval | Kind::Spelled)
    }
}

impl Rows {
    /// Whether each value is one that decoding would take.
    pub fn are_plain(&self, kinds: &[Kind]) -> bool {
        i32::try_from(self.bytes()).is_ok() && kinds.iter().enumerate().all(|(i, kind)| plain(*kind, self.column(i)))
    }

    /// The rows that are whole, which are forgotten here. The first of them may stand behind something else.
    pub fn take(&mut self) -> Result<BinaryArray> {
        let (bytes, starts) = self.take_whole();
        Ok(BinaryArray::try_new(OffsetBuffer::new(starts.into()), bytes.into(), None)?)
    }
}

fn plain(kind: Kind, fields: Fields<'_>) -> bool {
    let all = |plain: fn(&[u8]) -> bool| fields.values().all(|value| value.is_none_or(plain));
    let rule = InfinityRule::Reject;
    match kind {
        Kind::Bool => all(|b| b.len() == 1),
        Kind::Int2 => all(|b| b.len() == 2),
        Kind::Int4 | Kind::Oid | Kind::Float4 => all(|b| b.len() == 4),
        Kind::Int8 | Kind::Float8 | Kind::Time => all(|b| b.len() == 8),
        Kind::Uuid => all(|b| b.len() == 16),
        // NaN and the infinities have both bits of the sign that no number has.
        Kind::Numeric(_) => all(|b| b.get(4).is_some_and(|sign| sign & 0xC0 != 0xC0)),
        Kind::Date => fields.values().all(|value| value.is_none_or(|b| value::date(b, rule).is_ok())),
        Kind::Timestamp | Kind::TimestampTz => fields.values().all(|value| value.is_none_or(|b| value::timestamp(b, rule).is_ok())),
        Kind::Jsonb => all(|b| value::jsonb(b).is_ok()),
        Kind::Text(_) | Kind::Json | Kind::Bytea => true,
        Kind::Interval | Kind::Spelled => false,
    }
}
