//! The templates of the pages, with what each shows. They stand in `crates/cli/templates/site`.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use trib_core::{Error, Result};

use super::RunView;
use super::tables::TableView;

macro_rules! templates {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../templates/site/", $name)))),*]
    };
}

const TEMPLATES: [(&str, &str); 6] = templates!["base.html" "index.html" "table.html" "tests.html" "runs.html" "graph.svg"];

/// Fills templates. Whatever is put into them is text, unless they say otherwise.
pub struct Pages(Environment<'static>);

impl Pages {
    pub fn new() -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        for (name, template) in TEMPLATES {
            environment.add_template(name, template).map_err(failed)?;
        }
        Ok(Self(environment))
    }

    pub fn fill(&self, template: &str, with: &impl Serialize) -> Result<String> {
        self.0.get_template(template).and_then(|t| t.render(Serde(with))).map_err(failed)
    }

    /// A whole page, around what a template of its own shows.
    pub fn page(&self, head: &Head<'_>, title: &str, template: &str, with: &impl Serialize) -> Result<String> {
        self.fill("base.html", &Page { head, title, content: self.fill(template, with)? })
    }
}

#[derive(Serialize)]
struct Page<'a> {
    head: &'a Head<'a>,
    title: &'a str,
    content: String,
}

/// The templates are ours, and so is what is wrong with them.
fn failed(e: minijinja::Error) -> Error {
    Error::internal("a page could not be made").detail(e.to_string()).source(e)
}

/// What every page has.
#[derive(Serialize)]
pub struct Head<'a> {
    pub project: &'a str,
    pub environment: &'a str,
    pub version: &'a str,
    pub made: &'a str,
    pub active: &'static str,
    /// From the page to the folder.
    pub root: &'static str,
}

/// A number worth knowing.
#[derive(Serialize)]
pub struct Card {
    pub label: &'static str,
    pub value: String,
    pub href: &'static str,
    /// `good`, `bad` or nothing.
    pub tone: &'static str,
}

/// A run among the others, as high as it took long.
#[derive(Serialize)]
pub struct Bar {
    pub run: String,
    pub status: &'static str,
    pub percent: u32,
    pub title: String,
}

#[derive(Serialize)]
pub struct Index<'a> {
    pub project: &'a str,
    pub description: Option<&'a str>,
    pub cards: Vec<Card>,
    pub bars: Vec<Bar>,
    /// SVG, empty when there is nothing to draw.
    pub drawing: String,
    pub tables: &'a [TableView],
    pub notes: &'a [String],
}

#[derive(Serialize)]
pub struct TablePage<'a> {
    pub table: &'a TableView,
    pub drawing: String,
}

#[derive(Serialize)]
pub struct Tests<'a> {
    pub tables: Vec<&'a TableView>,
}

#[derive(Serialize)]
pub struct Runs<'a> {
    pub runs: &'a [RunView],
}
