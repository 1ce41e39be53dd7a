//! From a manifest's cursor component to the rule that a read goes by.

use std::sync::Arc;

use chrono::Weekday;
use serde_json::Value;
use trib_core::{Code, Error, Result};

use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::span::Span;
use super::super::time::{self, Time};
use super::Point;
use super::clamp::Clamp;
use super::window::{Values, WindowRule};

/// `catalog_field` is the cursor that the user chose, where the manifest lets them.
pub(in super::super) fn build(env: &Arc<Env>, node: &Node<'_>, catalog_field: Option<&str>) -> Result<WindowRule> {
    if !matches!(node.kind(), "DatetimeBasedCursor" | "IncrementingCountCursor") {
        return Err(node.unsupported());
    }
    let scope = env.scope();
    let field = match catalog_field.filter(|_| node.flag("allow_catalog_defined_cursor_field")) {
        Some(chosen) => chosen.to_owned(),
        None => node.need_expr("cursor_field")?.text(&scope)?,
    };
    match node.kind() {
        "DatetimeBasedCursor" => datetime(env, node, field),
        "IncrementingCountCursor" => {
            let start = node.expr("start_value")?.map(|s| s.eval(&scope)).transpose()?.unwrap_or(Value::from(0));
            let start = start.as_i64().or_else(|| start.as_str().and_then(|t| t.trim().parse().ok()));
            let start = start.ok_or_else(|| node.wrong("`start_value` does not give a whole number"))?;
            Ok(WindowRule {
                field,
                values: Values::Counts,
                start: Point::Count(start.into()),
                end: Box::new(|| Point::Never),
                lookback: None,
                step: None,
                granularity: None,
                clamp: None,
                strict: false,
                boundaries: None,
            })
        }
        _ => Err(node.unsupported()),
    }
}

fn datetime(env: &Arc<Env>, node: &Node<'_>, field: String) -> Result<WindowRule> {
    let scope = env.scope();
    let format = node.text("datetime_format").unwrap_or("%Y-%m-%dT%H:%M:%S.%f%z").to_owned();
    let mut inputs: Vec<String> =
        node.items("cursor_datetime_formats").iter().filter_map(|f| f.value.as_str().map(str::to_owned)).collect();
    inputs.push(format.clone());
    let span = |name: &str| -> Result<Option<Span>> {
        let Some(text) = node.expr(name)?.map(|e| e.text(&scope)).transpose()?.filter(|t| !t.is_empty() && t != "None") else {
            return Ok(None);
        };
        let span = Span::parse(&text).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "the duration cannot be read")
                .detail(text.clone())
                .setting(format!("{}.{name}", node.path))
                .hint("such as P30D or PT1H")
        })?;
        Ok((!span.is_zero()).then_some(span))
    };
    let (step, granularity) = (span("step")?, span("cursor_granularity")?);
    if node.get("step").is_some() != node.get("cursor_granularity").is_some() {
        return Err(node.wrong("`step` and `cursor_granularity` come together or not at all"));
    }
    let start = MinMax::build(&node.need("start_datetime")?, node, "start_datetime", &format)?;
    let start = Point::Time(start.time(env)?);
    let clamp = node.get("clamping").map(|c| clamp_of(env, &c)).transpose()?;
    let end = match node.get("end_datetime") {
        None => None,
        Some(end) => Some(MinMax::build(&end, node, "end_datetime", &format)?),
    };
    if let Some(end) = &end {
        // Says now that it cannot be evaluated.
        end.time(env)?;
    }
    let own_env = env.clone();
    let end_now = move || match &end {
        None => Point::Time(time::now()),
        Some(end) => end.time(&own_env).map_or_else(|_| Point::Time(time::now()), Point::Time),
    };
    let end: Box<dyn Fn() -> Point + Send + Sync> = match clamp {
        None => Box::new(end_now),
        Some(clamp) => {
            let usual = if clamp == Clamp::Day { Span::seconds(1) } else { Span::seconds(86_400) };
            Box::new(move || clamp.clamp(&end_now(), false).before(granularity.unwrap_or(usual)))
        }
    };
    let name = |field: &str, usual: &str| node.expr(field)?.map_or(Ok(usual.to_owned()), |e| e.text(&scope));
    Ok(WindowRule {
        field,
        values: Values::Times { inputs, format },
        start,
        end,
        lookback: span("lookback_window")?,
        step,
        granularity,
        clamp,
        strict: node.flag("is_compare_strictly"),
        boundaries: Some((name("partition_field_start", "start_time")?, name("partition_field_end", "end_time")?)),
    })
}

fn clamp_of(env: &Env, node: &Node<'_>) -> Result<Clamp> {
    match node.need_expr("target")?.text(&env.scope())?.as_str() {
        "DAY" => Ok(Clamp::Day),
        "MONTH" => Ok(Clamp::Month),
        "WEEK" => {
            let weekday = node.get("target_details").and_then(|d| d.text("weekday"));
            let weekday = weekday.and_then(|w| w.parse::<Weekday>().ok());
            weekday.map(Clamp::Week).ok_or_else(|| node.wrong("clamping to weeks needs a `weekday` in `target_details`"))
        }
        other => Err(node.wrong("clamping is to DAY, WEEK or MONTH").detail(other.to_owned())),
    }
}

/// A time that a template gives, within bounds that templates give.
struct MinMax {
    datetime: Expr,
    format: String,
    min: Option<Expr>,
    max: Option<Expr>,
    path: String,
}

impl MinMax {
    fn build(node: &Node<'_>, cursor: &Node<'_>, name: &str, format: &str) -> Result<Self> {
        if !node.value.is_object() {
            let datetime = cursor.need_expr(name)?;
            return Ok(Self { datetime, format: format.to_owned(), min: None, max: None, path: node.path.clone() });
        }
        let bound = |name: &str| Ok::<_, Error>(node.expr(name)?.filter(|e| !e.source().is_empty()));
        Ok(Self {
            datetime: node.need_expr("datetime")?,
            format: node.text("datetime_format").filter(|f| !f.is_empty()).unwrap_or(format).to_owned(),
            min: bound("min_datetime")?,
            max: bound("max_datetime")?,
            path: node.path.clone(),
        })
    }

    fn time(&self, env: &Env) -> Result<Time> {
        let read = |expr: &Expr| -> Result<Option<Time>> {
            let text = expr.text(&env.scope())?;
            if text.is_empty() {
                return Ok(None);
            }
            let parsed = time::parse(&Value::String(text.clone()), &self.format);
            parsed.map(Some).ok_or_else(|| {
                Error::new(Code::ConfigInvalid, "a time is not written in the format that the manifest expects")
                    .detail(format!("{text:?} is not of the form {}", self.format))
                    .setting(self.path.clone())
            })
        };
        let missing = || Error::new(Code::ConfigInvalid, "a time that the cursor needs is empty").setting(self.path.clone());
        let mut time = read(&self.datetime)?.ok_or_else(missing)?;
        if let Some(min) = self.min.as_ref().map_or(Ok(None), read)? {
            time = time.max(min);
        }
        if let Some(max) = self.max.as_ref().map_or(Ok(None), read)? {
            time = time.min(max);
        }
        Ok(time)
    }
}
