//! The functions that templates may call: the reference's macros, and `dict` and `namespace`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::arguments::Arguments;
use super::datetime::{self, Duration, Moment};
use super::encoding::quote;
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::value::Val;

type Run = for<'a> fn(&mut Machine<'a>, Arguments<'a>) -> Outcome<Val<'a>>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    name: &'static str,
    run: Run,
}

const FUNCTIONS: &[Function] = &[
    Function { name: "now_utc", run: now_utc },
    Function { name: "today_utc", run: today_utc },
    Function { name: "today_with_timezone", run: today_with_timezone },
    Function { name: "timestamp", run: timestamp },
    Function { name: "str_to_datetime", run: str_to_datetime },
    Function { name: "max", run: |machine, arguments| extreme(machine, arguments, "max", Ordering::Greater) },
    Function { name: "min", run: |machine, arguments| extreme(machine, arguments, "min", Ordering::Less) },
    Function { name: "day_delta", run: day_delta },
    Function { name: "duration", run: duration },
    Function { name: "format_datetime", run: format_datetime },
    Function { name: "sanitize_url", run: sanitize_url },
    Function { name: "camel_case_to_snake_case", run: camel_case_to_snake_case },
    Function { name: "generate_uuid", run: generate_uuid },
    Function { name: "dict", run: dict },
    Function { name: "namespace", run: namespace },
];

pub(super) fn find(name: &str) -> Option<Function> {
    FUNCTIONS.iter().find(|function| function.name == name).copied()
}

impl Function {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn call<'a>(&self, machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        (self.run)(machine, arguments)
    }
}

fn now(machine: &Machine<'_>) -> Moment {
    Moment::from_utc(machine.scope.now())
}

fn now_utc<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("now_utc", [], 0)?;
    Ok(Val::Moment(now(machine)))
}

fn today_utc<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("today_utc", [], 0)?;
    Ok(Val::Date(now(machine).local.date()))
}

fn today_with_timezone<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [zone] = arguments.bind("today_with_timezone", ["timezone"], 1)?;
    let zone = machine.text_argument(zone)?;
    match zone.parse::<chrono_tz::Tz>() {
        Ok(zone) => Ok(Val::Date(machine.scope.now().with_timezone(&zone).date_naive())),
        Err(_) => Fault::failed("the time zone is not known"),
    }
}

/// A text as a moment in UTC.
fn moment_of<'a>(machine: &mut Machine<'a>, value: Option<Val<'a>>) -> Outcome<Moment> {
    if let Some(value) = value.as_ref().filter(|value| value.is_undefined()) {
        return Err(machine.undefined(value));
    }
    let text = machine.text_argument(value)?;
    Ok(datetime::parse_iso(&text)?.in_utc())
}

fn timestamp<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [moment] = arguments.bind("timestamp", ["dt"], 1)?;
    match moment.as_ref().and_then(Val::as_float) {
        Some(number) if number.is_finite() && number.abs() < 1e30 => Ok(Val::Int(number.trunc() as i128)),
        Some(_) => Fault::failed("the number is too large"),
        None => Ok(Val::Float(moment_of(machine, moment)?.timestamp())),
    }
}

fn str_to_datetime<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [text] = arguments.bind("str_to_datetime", ["s"], 1)?;
    moment_of(machine, text).map(Val::Moment)
}

fn extreme<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>, name: &str, wanted: Ordering) -> Outcome<Val<'a>> {
    if !arguments.named.is_empty() {
        return Fault::wrong_type(format!("{name}() takes no keyword arguments"));
    }
    let items = match <[Val<'a>; 1]>::try_from(arguments.positional) {
        Ok([items]) => machine.iterate(&items)?,
        Err(items) if items.is_empty() => return Fault::wrong_type(format!("{name}() expects an argument")),
        Err(items) => items,
    };
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else { return Fault::failed(format!("{name}() of nothing")) };
    for item in items {
        if machine.order(&item, &best)? == Some(wanted) {
            best = item;
        }
    }
    Ok(best)
}

fn day_delta<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [days, format] = arguments.bind("day_delta", ["num_days", "format"], 1)?;
    let Some(days) = days.as_ref().and_then(Val::as_float) else { return Fault::wrong_type("a number of days is expected") };
    let moment = now(machine).plus(datetime::Delta::from_seconds(days * 86_400.0)?)?;
    let format = match format {
        Some(format) => machine.text_argument(Some(format))?,
        None => "%Y-%m-%dT%H:%M:%S.%f%z".to_owned(),
    };
    Ok(Val::str(datetime::strftime(&moment, &format)))
}

fn duration<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [text] = arguments.bind("duration", ["datestring"], 1)?;
    let duration = Duration::parse(&machine.text_argument(text)?)?;
    Ok(match duration.as_delta() {
        Some(delta) => Val::Delta(delta),
        None => Val::Duration(Rc::new(duration)),
    })
}

fn format_datetime<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [moment, format, input_format] = arguments.bind("format_datetime", ["dt", "format", "input_format"], 2)?;
    let format = machine.text_argument(format)?;
    let input_format = match input_format {
        None | Some(Val::None) => None,
        Some(given) => Some(machine.text_argument(Some(given))?),
    };
    let input_format = input_format.as_deref().filter(|format| !format.is_empty());
    let moment = match (moment, input_format) {
        (Some(Val::Moment(moment)), _) => return Ok(Val::str(datetime::strftime(&moment, &format))),
        (Some(number), format) if number.as_int().is_some() => {
            datetime::parse(&number.as_int().unwrap_or_default().to_string(), format.unwrap_or("%s"))?
        }
        (text, None) => moment_of(machine, text)?,
        (text, Some(input_format)) => {
            let moment = datetime::strptime(&machine.text_argument(text)?, input_format)?;
            Moment { offset: moment.offset.or(Some(datetime::utc_offset())), ..moment }
        }
    };
    Ok(Val::str(datetime::format(&moment, &format)))
}

fn sanitize_url<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [text] = arguments.bind("sanitize_url", ["value"], 1)?;
    let text = machine.text_argument(text)?;
    machine.spend_text(text.len() * 3)?;
    Ok(Val::str(quote(&text, "", true)))
}

fn camel_case_to_snake_case<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [text] = arguments.bind("camel_case_to_snake_case", ["value"], 1)?;
    let text = machine.text_argument(text)?;
    machine.spend_text(text.len() * 2)?;
    let mut snake = String::with_capacity(text.len() + 8);
    for (at, char) in text.char_indices() {
        if at > 0 && char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.extend(char.to_lowercase());
    }
    Ok(Val::str(snake))
}

fn generate_uuid<'a>(_: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("generate_uuid", [], 0)?;
    Ok(Val::str(uuid::Uuid::new_v4().to_string()))
}

fn dict<'a>(machine: &mut Machine<'a>, mut arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let named = std::mem::take(&mut arguments.named);
    let [other] = arguments.bind("dict", ["mapping"], 0)?;
    let id = machine.entries_object(Vec::new())?;
    let pairs = match other {
        Some(other) => machine.entries_of(&other)?,
        None => Vec::new(),
    };
    for (key, value) in pairs.into_iter().chain(named.into_iter().map(|(name, value)| (Val::Str(name), value))) {
        machine.insert(id, key, value)?;
    }
    Ok(Val::Dict(id))
}

fn namespace<'a>(machine: &mut Machine<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    match dict(machine, arguments)? {
        Val::Dict(id) => Ok(Val::Namespace(id)),
        other => Ok(other),
    }
}
