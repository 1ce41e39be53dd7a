//! Models that ask for it are templates: variables and macros are filled in, and what comes of it is parsed as SQL.
//!
//! A macro is a file: `macros/euros.sql` is the text that a call of `euros(…)` leaves, with the arguments that its front matter names. A template sees its
//! variables, the project's macros and the environment's name. Variables of the process, secrets and files are out of its reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Object, Rest, Serde, Value, ValueOrKwargs, from_args};
use minijinja::{AutoEscape, Environment, ErrorKind, State, UndefinedBehavior};
use serde::Deserialize;
use trib_core::error::closest;
use trib_core::{Code, Error, Result};

use crate::decode::decode;
use crate::files::Text;
use crate::model::split;
use crate::place::At;
use crate::yaml::{self, Node};

/// Macros that call each other in a circle are stopped here.
const DEEPEST: usize = 20;
/// Around the number of a line, in a template that is filled in only to learn where its lines come from. Nobody writes these.
const MARKS: [char; 2] = ['\u{f0f00}', '\u{f0f01}'];

/// The front matter of a macro.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MacroSpec {
    #[serde(rename = "description")]
    _description: Option<String>,
    args: Vec<Argument>,
}

/// `name`, or `{name: what it is when it is not given}`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Argument {
    Needed(String),
    Usual(BTreeMap<String, serde_json::Value>),
}

/// The project's macros, and what else its templates see.
pub(crate) struct Templates {
    jinja: Environment<'static>,
    macros: Vec<String>,
}

/// A template that was filled in.
#[derive(Debug)]
pub(crate) struct Filled {
    pub sql: String,
    pub lines: Vec<Line>,
}

/// Where a line of what was filled in comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The line of the file.
    pub number: usize,
    /// Nothing was filled in: its columns are those of the file.
    pub as_it_is: bool,
}

impl Templates {
    /// `files` are those of `macros/`.
    pub fn new(files: &[Text], environment: &str, errors: &mut Vec<Error>) -> Self {
        let mut jinja = Environment::new();
        jinja.set_undefined_behavior(UndefinedBehavior::Strict);
        jinja.set_auto_escape_callback(|_| AutoEscape::None);
        jinja.add_filter("literal", literal);
        jinja.add_global("environment", environment);
        let mut templates = Self { jinja, macros: Vec::new() };
        let depth = Arc::new(AtomicUsize::new(0));
        for file in files {
            if let Err(e) = templates.add(file, &depth, errors) {
                errors.push(e);
            }
        }
        templates
    }

    fn add(&mut self, file: &Text, depth: &Arc<AtomicUsize>, errors: &mut Vec<Error>) -> Result<()> {
        let (at, name) = (At::start_of(&file.name), file.stem());
        let invalid = |message| Error::new(Code::ConfigInvalid, message);
        if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(at.mark(invalid("a macro's file has the name that it is called by").hint("letters, digits and `_` are allowed")));
        }
        if self.macros.iter().any(|known| known == name) {
            return Err(at.mark(invalid("two macros have one name").detail(format!("`{name}`"))));
        }
        let Some(parts) = split(&file.text) else {
            return Err(at.mark(invalid("the front matter is never closed").hint("end it with `---*/`")));
        };
        let front = match parts.front {
            Some((front, line)) => yaml::parse(&file.name, front, line)?,
            None => Node::empty_map(at),
        };
        let Some(spec) = decode::<MacroSpec>(&front, &[], errors) else { return Ok(()) };
        let args: Vec<(String, Option<Value>)> = spec.args.into_iter().flat_map(Argument::named).collect();
        let text = lowered(parts.sql, parts.sql_line);
        self.jinja.add_template_owned(file.name.clone(), text).map_err(|e| self.mistake(&e, &file.name))?;
        let (template, depth) = (file.name.clone(), depth.clone());
        let call = move |state: &State<'_, '_>, given: Rest<ValueOrKwargs>| {
            let _deeper = Deeper::than(&depth)?;
            let text = state.env().get_template(&template)?.render(Value::from_pairs(arguments(&args, &given.into_values())?))?;
            Ok::<_, minijinja::Error>(text.trim().to_owned())
        };
        self.jinja.add_function(name.to_owned(), call);
        self.macros.push(name.to_owned());
        Ok(())
    }

    /// Fills in the SQL that begins in this line of a file.
    pub fn fill(&self, file: &str, sql: &str, first_line: usize, vars: &BTreeMap<String, serde_json::Value>) -> Result<Filled> {
        let text = lowered(sql, first_line);
        let filled = self.rendered(file, &text, vars)?;
        let filled = raised(&filled, first_line).to_owned();
        // Filled in once more with marks. Where they change what comes out, nobody can say where its lines come from.
        let marked = self.rendered(file, &marked(&text), vars).ok();
        let lines = marked.and_then(|marked| lines(raised(&marked, first_line), &filled, first_line));
        let numbers = lines.unwrap_or_else(|| vec![first_line; filled.split('\n').count()]);
        let written: Vec<&str> = sql.split('\n').collect();
        let as_it_is = |number: usize, line: &str| written.get(number - first_line).is_some_and(|w| *w == line);
        let lines = numbers.into_iter().zip(filled.split('\n')).map(|(number, line)| Line { number, as_it_is: as_it_is(number, line) });
        Ok(Filled { lines: lines.collect(), sql: filled })
    }

    fn rendered(&self, file: &str, text: &str, vars: &BTreeMap<String, serde_json::Value>) -> Result<String> {
        let seen = Arc::new(Vars { values: vars.clone(), missed: Mutex::default() });
        self.jinja.render_named_str(file, text, Value::from_dyn_object(seen.clone())).map_err(|e| {
            let error = self.mistake(&e, file);
            // What a macro misses is none of the template's variables.
            match seen.missed().filter(|_| e.kind() == ErrorKind::UndefinedError && e.name() == Some(file)) {
                None => error,
                Some(name) => {
                    let error = error.detail(format!("there is no variable `{name}`"));
                    match closest(&name, vars.keys().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => {
                            error.hint("say it under `vars:` in the front matter, or for all models under `defaults: {model: {vars: …}}`")
                        }
                    }
                }
            }
        })
    }

    fn mistake(&self, e: &minijinja::Error, file: &str) -> Error {
        let said = e.detail().map_or_else(|| e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()));
        let error = Error::new(Code::ConfigInvalid, "the template cannot be filled in").detail(said);
        let error = error.file(e.name().unwrap_or(file), e.line(), None);
        let called = e.detail().and_then(|d| d.split_whitespace().next()).filter(|_| e.kind() == ErrorKind::UnknownFunction);
        match called.and_then(|name| closest(name, self.macros.iter().map(String::as_str))) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if called.is_some() => error.hint("a macro is a file of its name in `macros/`"),
            None => error,
        }
    }
}

impl Argument {
    fn named(self) -> Vec<(String, Option<Value>)> {
        match self {
            Argument::Needed(name) => vec![(name, None)],
            Argument::Usual(names) => names.into_iter().map(|(name, usual)| (name, Some(Value::from(Serde(usual))))).collect(),
        }
    }
}

/// The arguments of a call by their names: in their order, or `name=value`.
fn arguments(args: &[(String, Option<Value>)], given: &[Value]) -> std::result::Result<BTreeMap<String, Value>, minijinja::Error> {
    let wrong = |kind, detail: String| Err(minijinja::Error::new(kind, detail));
    let (placed, named): (&[Value], Kwargs) = from_args(given)?;
    if placed.len() > args.len() {
        return wrong(ErrorKind::TooManyArguments, format!("it takes {}", args.len()));
    }
    let mut values = BTreeMap::new();
    for (i, (name, usual)) in args.iter().enumerate() {
        let value = match placed.get(i) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?.or_else(|| usual.clone()),
        };
        match value {
            Some(value) => drop(values.insert(name.clone(), value)),
            None => return wrong(ErrorKind::MissingArgument, format!("`{name}`")),
        }
    }
    named.assert_all_used()?;
    Ok(values)
}

/// One call within another.
struct Deeper<'a>(&'a AtomicUsize);

impl<'a> Deeper<'a> {
    fn than(depth: &'a AtomicUsize) -> std::result::Result<Self, minijinja::Error> {
        let deeper = Self(depth);
        if depth.fetch_add(1, Ordering::Relaxed) < DEEPEST {
            return Ok(deeper);
        }
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "macros call each other in a circle"))
    }
}

impl Drop for Deeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A value as SQL writes it: texts in quotes, a list in parentheses.
fn literal(value: &Value) -> std::result::Result<String, minijinja::Error> {
    fn sql(value: &serde_json::Value) -> Option<String> {
        Some(match value {
            serde_json::Value::Null => "null".to_owned(),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => value.to_string(),
            serde_json::Value::String(text) => format!("'{}'", text.replace('\'', "''")),
            serde_json::Value::Array(items) => format!("({})", items.iter().map(sql).collect::<Option<Vec<_>>>()?.join(", ")),
            serde_json::Value::Object(_) => return None,
        })
    }
    let json = serde_json::to_value(value).ok();
    json.as_ref().and_then(sql).ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, "a map is no literal of SQL"))
}

/// The variables of a template, and the last one that was not there.
#[derive(Debug)]
struct Vars {
    values: BTreeMap<String, serde_json::Value>,
    missed: Mutex<Option<String>>,
}

impl Vars {
    fn missed(&self) -> Option<String> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Object for Vars {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let found = self.values.get(name).map(|value| Value::from(Serde(value)));
        if found.is_none() {
            *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        }
        found
    }
}

/// The text with as many lines before it as its file has, so that errors name lines of the file.
fn lowered(sql: &str, first_line: usize) -> String {
    "\n".repeat(first_line - 1) + sql
}

/// Without those lines again, as far as the template has left them there.
fn raised(text: &str, first_line: usize) -> &str {
    &text[text.bytes().take(first_line - 1).take_while(|b| *b == b'\n').count()..]
}

/// The template with the number of its line before whatever begins on a line, and before each value.
fn marked(text: &str) -> String {
    let mut places = Vec::new();
    for (token, span) in tokenize(text, false, SyntaxConfig::default()).map_while(std::result::Result::ok) {
        match token {
            Token::TemplateData(data) => {
                // It is a part of the text.
                let begin = data.as_ptr() as usize - text.as_ptr() as usize;
                let mut at = begin;
                for line in data.split_inclusive('\n') {
                    places.extend(line.find(|c: char| !c.is_whitespace()).map(|blank| at + blank));
                    at += line.len();
                }
            }
            // One that takes away the blanks before it would not with a mark among them.
            Token::VariableStart if !text[span.start_offset as usize..].starts_with("{{-") => places.push(span.start_offset as usize),
            _ => {}
        }
    }
    let (mut out, mut done, mut line) = (String::with_capacity(text.len() * 2), 0, 1);
    for place in places {
        line += text[done..place].matches('\n').count();
        out.push_str(&text[done..place]);
        out.push_str(&format!("{}{line}{}", MARKS[0], MARKS[1]));
        done = place;
    }
    out + &text[done..]
}

/// The line of the file for each line of what was filled in; `None` when it is not the same without its marks.
fn lines(marked: &str, filled: &str, first_line: usize) -> Option<Vec<usize>> {
    let (mut plain, mut lines, mut last) = (String::with_capacity(filled.len()), Vec::new(), first_line);
    for (i, line) in marked.split('\n').enumerate() {
        if i > 0 {
            plain.push('\n');
        }
        let mut first = None;
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(MARKS[0]) {
            let (number, after) = after.split_once(MARKS[1])?;
            last = number.parse().ok()?;
            first.get_or_insert(last);
            plain.push_str(before);
            rest = after;
        }
        plain.push_str(rest);
        lines.push(first.unwrap_or(last));
    }
    (plain == filled).then_some(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn templates(macros: &[(&str, &str)]) -> (Templates, Vec<Error>) {
        let files: Vec<Text> =
            macros.iter().map(|(name, text)| Text { name: format!("macros/{name}.sql"), text: (*text).to_owned() }).collect();
        let mut errors = Vec::new();
        (Templates::new(&files, "dev", &mut errors), errors)
    }

    fn fill(macros: &[(&str, &str)], sql: &str) -> Result<Filled> {
        let (templates, errors) = templates(macros);
        assert!(errors.is_empty(), "{errors:?}");
        let vars = json!({"since": "2024-01-01", "kinds": ["a", "it's"], "n": 2});
        templates.fill("models/m.sql", sql, 5, &serde_json::from_value(vars).unwrap())
    }

    const EUROS: &str = "/*---\nargs: [column, {digits: 2}]\n---*/\nround(\n  {{ column }} / 100.0,\n  {{ digits }})\n";

    #[test]
    fn variables_and_macros() {
        let cases = [
            ("select 1", "select 1"),
            ("select {{ n }}, {{ since | literal }}", "select 2, '2024-01-01'"),
            ("x in {{ kinds | literal }}", "x in ('a', 'it''s')"),
            ("{% if environment == 'dev' %}limit 10{% endif %}", "limit 10"),
            ("{% for k in kinds %}{{ k }}{% if not loop.last %}, {% endif %}{% endfor %}", "a, it's"),
            ("select {{ euros('amount') }}", "select round(\n  amount / 100.0,\n  2)"),
            ("{{ euros(column='a', digits=n) }}", "round(\n  a / 100.0,\n  2)"),
            ("{{ twice(euros('a', 0)) }}", "round(\n  a / 100.0,\n  0) + round(\n  a / 100.0,\n  0)"),
        ];
        let macros = [("euros", EUROS), ("twice", "/*---\nargs: [what]\n---*/ {{ what }} + {{ what }}")];
        for (sql, expected) in cases {
            assert_eq!(fill(&macros, sql).unwrap().sql, expected, "{sql}");
        }
    }

    #[test]
    fn lines_come_from_where_they_stand() {
        let sql = "\nselect\n{% for k in kinds %}\n  '{{ n }}' as x,\n{% endfor %}\n  {{ euros('a') }} as y,\n{% if false %}\n  no,\n{% endif %}\n  z";
        let filled = fill(&[("euros", EUROS)], sql).unwrap();
        let lines = filled.lines.iter().zip(filled.sql.split('\n'));
        let named: Vec<_> = lines.filter(|(_, l)| !l.trim().is_empty()).map(|(line, text)| (line.number, text, line.as_it_is)).collect();
        let expected = [
            (6, "select", true),
            (8, "  '2' as x,", false),
            (8, "  '2' as x,", false),
            (10, "  round(", false),
            (10, "  a / 100.0,", false),
            (10, "  2) as y,", false),
            (14, "  z", true),
        ];
        assert_eq!(named, expected);
        // Marks that change what comes out are no marks.
        let filled = fill(&[], "{% set a %}x{% endset %}{% if a == 'x' %}yes{% endif %}").unwrap();
        assert_eq!((filled.sql.as_str(), filled.lines), ("yes", vec![Line { number: 5, as_it_is: false }]));
    }

    #[test]
    fn mistakes_have_a_place() {
        let circle = [("a", "{{ b() }}"), ("b", "\n{{ a() }}")];
        let cases: [(&[(&str, &str)], &str, &str, usize, &str); 7] = [
            (&[], "select\n{{ sinse }}", "models/m.sql", 6, "did you mean `since`?"),
            (&[], "select\n{{ nothing_like_it }}", "models/m.sql", 6, "say it under `vars:`"),
            (&[("euros", EUROS)], "\n{{ euro('a') }}", "models/m.sql", 6, "did you mean `euros`?"),
            (&[("euros", EUROS)], "{{ euros() }}", "models/m.sql", 5, "missing argument: `column`"),
            (&[("euros", EUROS)], "{{ euros('a', 1, 2) }}", "models/m.sql", 5, "it takes 2"),
            (&[("odd", "/*---\nargs: []\n---*/\n\n{{ since }}")], "{{ odd() }}", "macros/odd.sql", 5, "undefined value"),
            (&circle, "{{ a() }}", "macros/a.sql", 1, "in a circle"),
        ];
        for (macros, sql, file, line, says) in cases {
            let error = fill(macros, sql).unwrap_err();
            let place = error.place();
            let said = format!("{error} {}", error.hint_text().unwrap_or_default());
            assert!(said.contains(says), "{sql}: {error:?}");
            if says != "in a circle" {
                assert_eq!((place.file.as_deref(), place.line), (Some(file), Some(line)), "{sql}: {error:?}");
            }
        }
        let (_, errors) = templates(&[("x", "/*---\nargz: [a]\n---*/ {{ a }}"), ("y", "\n\n{{ a "), ("1st", "x")]);
        let places: Vec<String> =
            errors.iter().map(|e| format!("{}:{}", e.place().file.as_deref().unwrap(), e.place().line.unwrap_or_default())).collect();
        assert_eq!(places, ["macros/x.sql:2", "macros/y.sql:3", "macros/1st.sql:1"]);
    }

    #[test]
    fn the_process_is_out_of_reach() {
        for sql in ["{{ env('HOME') }}", "{{ HOME }}", "{{ environ.HOME }}", "{% include '.env' %}", "{{ ''.__class__ }}"] {
            assert!(fill(&[], sql).is_err(), "{sql}");
        }
    }
}
