//! A clock that stands still, for tests whose expectations name a day.

use arrow::datatypes::DataType;
use chrono::{DateTime, Timelike, Utc};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;

/// Lets `now()`, `current_timestamp`, `current_date`, `today()` and `current_time` of a session give one instant.
pub fn stop(context: &SessionContext, now: DateTime<Utc>) {
    let nanos = now.timestamp_nanos_opt().unwrap_or(i64::MAX);
    let days = i32::try_from(now.timestamp().div_euclid(86_400)).unwrap_or(i32::MAX);
    let of_day = i64::from(now.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(now.nanosecond());
    let functions = [
        ("now", "current_timestamp", ScalarValue::TimestampNanosecond(Some(nanos), Some("UTC".into()))),
        ("current_date", "today", ScalarValue::Date32(Some(days))),
        ("current_time", "current_time", ScalarValue::Time64Nanosecond(Some(of_day))),
    ];
    for (name, alias, value) in functions {
        let function = Stopped { name, aliases: vec![alias.to_owned()], value, signature: Signature::nullary(Volatility::Immutable) };
        context.register_udf(ScalarUDF::from(function));
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Stopped {
    name: &'static str,
    aliases: Vec<String>,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Stopped {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
