//! Methods of Python's objects, by type.

use super::arguments::Arguments;
use super::datetime::{self, Moment};
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::value::{Object, Val};
use super::{containers, text_methods};

const MOMENT: &[&str] =
    &["strftime", "strptime", "isoformat", "timestamp", "date", "replace", "weekday", "isoweekday", "toordinal", "utcoffset", "tzname"];
const DATE: &[&str] = &["strftime", "isoformat", "replace", "weekday", "isoweekday", "toordinal"];

/// Whether a value has a method of this name.
pub(super) fn has(subject: &Val<'_>, name: &str) -> bool {
    let names: &[&str] = match subject {
        Val::Str(_) => text_methods::NAMES,
        Val::Tuple(_) => containers::TUPLE,
        Val::Moment(_) => MOMENT,
        Val::Date(_) => DATE,
        Val::Delta(_) | Val::Duration(_) => &["total_seconds"],
        Val::Float(_) => &["is_integer"],
        Val::Loop(_) => &["cycle"],
        _ => match subject.kind() {
            "list" => containers::LIST,
            "dict" => containers::DICT,
            _ => &[],
        },
    };
    names.contains(&name)
}

impl<'a> Machine<'a> {
    pub(super) fn call_method(&mut self, subject: Val<'a>, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        match &subject {
            Val::Str(text) => self.text_method(text.clone(), name, arguments),
            Val::Moment(moment) => self.moment_method(*moment, name, arguments),
            Val::Date(date) => {
                let midnight = Moment { local: date.and_time(chrono::NaiveTime::MIN), offset: None };
                match name {
                    "isoformat" => {
                        arguments.bind(name, [], 0)?;
                        Ok(Val::str(date.to_string()))
                    }
                    "replace" => match self.moment_method(midnight, name, arguments)? {
                        Val::Moment(moment) => Ok(Val::Date(moment.local.date())),
                        other => Ok(other),
                    },
                    _ => self.moment_method(midnight, name, arguments),
                }
            }
            Val::Delta(delta) => {
                arguments.bind(name, [], 0)?;
                Ok(Val::Float(delta.total_seconds()))
            }
            Val::Duration(duration) => {
                arguments.bind(name, [], 0)?;
                Ok(Val::Float(duration.rest.total_seconds()))
            }
            Val::Float(float) => {
                arguments.bind(name, [], 0)?;
                Ok(Val::Bool(float.fract() == 0.0))
            }
            Val::Loop(id) => {
                let index = match self.object(*id) {
                    Object::Loop { index, .. } => *index,
                    _ => 0,
                };
                let mut values = arguments.positional;
                if values.is_empty() {
                    return Fault::wrong_type("no items for cycling given");
                }
                let at = index % values.len();
                Ok(values.swap_remove(at))
            }
            _ if matches!(subject.kind(), "list" | "tuple") => self.list_method(subject, name, arguments),
            _ => self.dict_method(subject, name, arguments),
        }
    }

    fn moment_method(&mut self, moment: Moment, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        use chrono::Datelike;
        match name {
            "strftime" => {
                let [format] = arguments.bind(name, ["format"], 1)?;
                let format = self.text_argument(format)?;
                self.spend_text(format.len())?;
                Ok(Val::str(datetime::strftime(&moment, &format)))
            }
            "strptime" => {
                let [text, format] = arguments.bind(name, ["date_string", "format"], 2)?;
                let (text, format) = (self.text_argument(text)?, self.text_argument(format)?);
                Ok(Val::Moment(datetime::strptime(&text, &format)?))
            }
            "isoformat" => {
                let [separator] = arguments.bind(name, ["sep"], 0)?;
                let separator = match separator {
                    Some(separator) => self.text_argument(Some(separator))?.chars().next().unwrap_or('T'),
                    None => 'T',
                };
                Ok(Val::str(moment.isoformat(separator)))
            }
            "replace" => self.replace_fields(moment, arguments),
            _ => {
                arguments.bind(name, [], 0)?;
                let date = moment.local.date();
                Ok(match name {
                    "timestamp" => Val::Float(moment.timestamp()),
                    "date" => Val::Date(date),
                    "weekday" => Val::Int(date.weekday().num_days_from_monday().into()),
                    "isoweekday" => Val::Int(date.weekday().number_from_monday().into()),
                    "toordinal" => Val::Int(date.num_days_from_ce().into()),
                    "tzname" if moment.offset.is_some() => Val::str(moment.zone_name()),
                    "utcoffset" => match moment.offset {
                        Some(offset) => Val::Delta(datetime::Delta(i64::from(offset.local_minus_utc()) * 1_000_000)),
                        None => Val::None,
                    },
                    _ => Val::None,
                })
            }
        }
    }

    fn replace_fields(&mut self, moment: Moment, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        use chrono::{Datelike, NaiveDate, Timelike};
        const FIELDS: [&str; 8] = ["year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo"];
        let [year, month, day, hour, minute, second, micros, zone] = arguments.bind("replace", FIELDS, 0)?;
        let field = |given: Option<Val<'a>>, present: u32| match given {
            None => Ok(present),
            Some(value) => match value.as_int() {
                Some(int) => u32::try_from(int).map_err(|_| Fault::from(datetime::DateError::Range)),
                None => Fault::wrong_type("an integer is required"),
            },
        };
        let local = moment.local;
        let date = NaiveDate::from_ymd_opt(
            i32::try_from(field(year, local.year().unsigned_abs())?).unwrap_or(0),
            field(month, local.month())?,
            field(day, local.day())?,
        );
        let local = date.filter(|date| datetime::in_range(*date)).and_then(|date| {
            let (hour, minute, second) =
                (field(hour, local.hour()).ok()?, field(minute, local.minute()).ok()?, field(second, local.second()).ok()?);
            date.and_hms_micro_opt(hour, minute, second, field(micros, local.nanosecond() / 1_000).ok()?)
        });
        let offset = if matches!(zone, Some(Val::None)) { None } else { moment.offset };
        local.map(|local| Val::Moment(Moment { local, offset })).ok_or_else(|| datetime::DateError::Range.into())
    }

    /// An argument that must be text.
    pub(super) fn text_argument(&mut self, value: Option<Val<'a>>) -> Outcome<String> {
        match value {
            Some(Val::Str(text)) => Ok((*text).to_owned()),
            Some(Val::Undefined { .. }) | None => Fault::wrong_type("a text is expected, not something undefined"),
            Some(other) => Fault::wrong_type(format!("a text is expected, not {}", other.kind())),
        }
    }

    /// An argument that must be an integer, or its default.
    pub(super) fn int_argument(&mut self, value: Option<Val<'a>>, default: i128) -> Outcome<i128> {
        match value {
            None => Ok(default),
            Some(value) => match value.as_int() {
                Some(int) => Ok(int),
                None if value.is_undefined() => Err(self.undefined(&value)),
                None => Fault::wrong_type(format!("an integer is expected, not {}", value.kind())),
            },
        }
    }
}
