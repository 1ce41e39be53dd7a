//! From the folder to the [`Project`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::de::DeserializeOwned;
use trib_core::{Code, Error};

use crate::command::Command;
use crate::config::command::CommandSpec;
use crate::config::connection::ConnectionSpec;
use crate::config::job::JobSpec;
use crate::config::project::{NEWEST, ProjectSpec};
use crate::config::sync::{SyncDefaults, SyncSpec};
use crate::config::unit_test::UnitTestSpec;
use crate::decode::decode;
use crate::environment::{self, Environment};
use crate::files::{self, Text};
use crate::interpolate::{Missing, Variables, fill};
use crate::macros::Templates;
use crate::pattern::Pattern;
use crate::place::At;
use crate::project::{Declared, Job, Project, UnitTest};
use crate::seed::Seed;
use crate::sync::{Sync, hash};
use crate::yaml::{self, Content, Entry, Node};
use crate::{dotenv, graph, model, validate};

/// The file that makes a folder a project.
pub const MAIN: &str = "tributary.yaml";
pub(crate) const CONNECTIONS: &str = "connections.yaml";
/// The connection that every project has unless it says otherwise.
const WAREHOUSE: &str = "warehouse";
pub(crate) const YAML: &[&str] = &["yaml", "yml"];

impl Project {
    /// Reads the project in `dir`, as it is in `environment` (see [`environment::choose`]), with variables from `variables`, then
    /// from `.env`, then from the environment's `vars`.
    ///
    /// Gives all that is wrong, not only the first. A variable without a value is no error here, but of what needs
    /// it: see [`Project::missing`]. Reads files, and no other I/O.
    pub fn load(dir: &Path, environment: Option<&str>, variables: Variables) -> Result<Project, Vec<Error>> {
        let mut errors = Vec::new();
        let project = Loader { dir, variables: variables.in_dir(dir), errors: &mut errors }.load(environment);
        match project {
            Some(project) if errors.is_empty() => Ok(project),
            _ => Err(errors),
        }
    }
}

/// The nearest folder with a [`MAIN`], from `start` upwards.
pub fn find(start: &Path) -> Option<&Path> {
    start.ancestors().find(|dir| dir.join(MAIN).is_file())
}

struct Loader<'a> {
    dir: &'a Path,
    variables: Variables,
    errors: &'a mut Vec<Error>,
}

impl Loader<'_> {
    fn load(mut self, asked: Option<&str>) -> Option<Project> {
        let Some(main) = self.or_note(files::read(self.dir, MAIN))? else {
            let error = Error::new(Code::NotFound, "there is no project here").detail(self.dir.display().to_string());
            self.errors.push(error.hint("`trib init` makes one; `--project-dir` names another folder"));
            return None;
        };
        if let Some(env) = self.or_note(files::read(self.dir, ".env"))? {
            let known = self.or_note(dotenv::parse(&env.name, &env.text))?;
            self.variables = self.variables.then(".env", known);
        }
        let raw = self.or_note(yaml::parse(&main.name, &main.text, 1).and_then(migrate))?;
        let environment = self.or_note(environment::choose(asked, &raw))?;
        let vars = raw.at_path(&["environments", &environment, "vars"]).map(|vars| self.texts(vars));
        if let Some(vars) = vars.filter(|v| !v.is_empty()) {
            self.variables = self.variables.then("the environment's `vars`", vars);
        }
        let main = self.main(&raw, &environment);
        // What is wrong with the main file does not hide what is wrong with the others.
        let unknown = || Environment { name: environment.clone(), schema_prefix: String::new(), protected: false, deliver: false };
        let environment = main.as_ref().map_or_else(unknown, |(_, environment, _)| environment.clone());

        let connections = self.connections(&raw, &environment.name);
        let syncs = self.syncs(raw.at_path(&["defaults", "sync"]), &environment);
        let models = self.models(raw.at_path(&["defaults", "model"]), &environment.name);
        let commands = self.commands();
        let jobs = self.jobs();
        let unit_tests = self.unit_tests();
        let (spec, environment, missing) = main?;
        let seeds = self.seeds(&spec);
        let mut project = Project {
            dir: self.dir.to_owned(),
            name: spec.name,
            description: spec.description,
            environment,
            state: spec.state,
            threads: spec.threads,
            notify: spec.notify,
            openlineage: spec.openlineage,
            jobs,
            unit_tests,
            connections,
            syncs,
            models,
            seeds,
            commands,
            missing,
        };
        project.place_reads();
        self.unique_names(&project);
        // What the parts say about each other is looked at once each part is right in itself.
        if self.errors.is_empty() {
            self.errors.extend(validate::references(&project));
            self.errors.extend(graph::Graph::of(&project).cycle());
        }
        Some(project)
    }

    fn or_note<T>(&mut self, result: trib_core::Result<T>) -> Option<T> {
        result.map_err(|e| self.errors.push(e)).ok()
    }

    /// A map of texts as it stands, its own variables filled in where they can be; what is not text is reported by the decoder.
    fn texts(&self, node: &Node) -> BTreeMap<String, String> {
        let filled = fill(node, &self.variables, &[], &mut Vec::new());
        let text = |e: &Entry| match &e.value.content {
            Content::Text(text) => Some((e.key.clone(), text.clone())),
            _ => None,
        };
        filled.entries().iter().filter_map(text).collect()
    }

    /// The main file. Of variables without a value, those of other environments do not matter, those of `notify` and `openlineage` wait until
    /// somebody is to be told something, those of connections until the connection is used, and the rest are errors.
    fn main(&mut self, raw: &Node, environment: &str) -> Option<(ProjectSpec, Environment, Vec<Missing>)> {
        let mut missing = Vec::new();
        let filled = fill(raw, &self.variables, &[], &mut missing);
        let mut waiting = Vec::new();
        for missing in missing {
            let path: Vec<&str> = missing.path.iter().map(String::as_str).collect();
            match path.as_slice() {
                ["environments", _, "connections" | "vars", ..] | ["defaults", ..] => {}
                ["environments", name, ..] if *name != environment => {}
                ["notify" | "openlineage", ..] => waiting.push(missing),
                _ => self.errors.push(missing.error()),
            }
        }
        let spec: ProjectSpec = decode(&filled, &[], self.errors)?;
        let own = spec.environments.get(environment).cloned().unwrap_or_default();
        let environment = Environment {
            name: environment.to_owned(),
            schema_prefix: own.schema_prefix,
            protected: own.protected,
            deliver: own.deliver.unwrap_or(true),
        };
        Some((spec, environment, waiting))
    }

    fn connections(&mut self, main: &Node, environment: &str) -> BTreeMap<String, Declared> {
        let one = self.or_note(files::read(self.dir, CONNECTIONS)).flatten();
        let mut files = files::read_all(self.dir, "connections", YAML, false, self.errors);
        files.splice(0..0, one);
        let mut raw: BTreeMap<String, Entry> = BTreeMap::new();
        for file in &files {
            let Some(node) = self.or_note(yaml::parse(&file.name, &file.text, 1)) else { continue };
            if !matches!(node.content, Content::Map(_)) {
                let error = Error::new(Code::ConfigInvalid, "the value is of the wrong kind");
                self.errors.push(node.at.mark(error.detail(format!("found {}, expected a map of connections", node.kind()))));
            }
            for entry in node.entries() {
                if let Some(first) = raw.get(&entry.key) {
                    self.errors.push(twice("connection", &entry.key, &first.at, &entry.at));
                } else {
                    self.name(&entry.key, &entry.at);
                    raw.insert(entry.key.clone(), entry.clone());
                }
            }
        }
        let changes = main.at_path(&["environments", environment, "connections"]).map(Node::entries).unwrap_or_default();
        for change in changes {
            let known = raw.remove(&change.key).filter(|_| change.value.get("connector").is_none());
            let value = known.map_or_else(|| change.value.clone(), |known| known.value.overlaid(&change.value));
            raw.insert(change.key.clone(), Entry { key: change.key.clone(), at: change.at.clone(), value });
        }
        raw.entry(WAREHOUSE.to_owned()).or_insert_with(|| {
            let at = At::start_of(CONNECTIONS);
            let lake = Entry { key: "connector".to_owned(), at: at.clone(), value: Node::text(at.clone(), "lake") };
            Entry { key: WAREHOUSE.to_owned(), at: at.clone(), value: Node::new(at, Content::Map(vec![lake])) }
        });
        raw.into_iter().filter_map(|(name, entry)| Some((name, self.connection(&entry)?))).collect()
    }

    fn connection(&mut self, entry: &Entry) -> Option<Declared> {
        let mut missing = Vec::new();
        let filled = fill(&entry.value, &self.variables, &[&entry.key], &mut missing);
        if !matches!(filled.content, Content::Map(_)) {
            // The decoder says that a map is wanted.
            decode::<ConnectionSpec>(&filled, &[&entry.key], self.errors);
            return None;
        }
        let (ours, theirs): (Vec<_>, Vec<_>) =
            filled.entries().iter().cloned().partition(|e| ConnectionSpec::KEYS.contains(&e.key.as_str()));
        let part = |entries| Node::new(filled.at.clone(), Content::Map(entries));
        let spec = decode(&part(ours), &[&entry.key], self.errors)?;
        Some(Declared { spec, settings: part(theirs), at: entry.at.clone(), missing })
    }

    fn syncs(&mut self, defaults: Option<&Node>, environment: &Environment) -> Vec<Sync> {
        let mut syncs = Vec::new();
        // What is wrong with the defaults was said when the main file was read.
        let sound = defaults.filter(|d| decode::<SyncDefaults>(d, &[], &mut Vec::new()).is_some());
        for file in files::read_all(self.dir, "syncs", YAML, false, self.errors) {
            let Some(raw) = self.or_note(yaml::parse(&file.name, &file.text, 1)) else { continue };
            let mut missing = Vec::new();
            let own = fill(&raw, &self.variables, &[], &mut missing);
            let Some(alone): Option<SyncSpec> = decode(&own, &[], self.errors) else { continue };
            let (node, spec) = match sound {
                None => (own, alone),
                Some(defaults) => {
                    let node = fill(defaults, &self.variables, &["defaults", "sync"], &mut missing).overlaid(&own);
                    let Some(spec) = decode(&node, &[], self.errors) else { continue };
                    (node, spec)
                }
            };
            let names: Vec<&str> = match &spec.streams {
                Some(streams) => streams.0.iter().map(|(name, _)| name.as_str()).collect(),
                None => vec!["*"],
            };
            let patterns = self.patterns(names, &node, "streams");
            let exclude = self.patterns(spec.exclude.iter().map(String::as_str).collect(), &node, "exclude");
            let written = [raw.to_json().to_string(), defaults.map(|d| d.to_json().to_string()).unwrap_or_default()];
            let at = At::start_of(&file.name);
            self.name(file.stem(), &at);
            let sync = Sync {
                name: file.stem().to_owned(),
                spec,
                at,
                hash: hash(&[&written[0], &written[1]]),
                environment: environment.clone(),
                patterns,
                exclude,
                node,
                missing,
            };
            self.errors.extend(validate::sync_alone(&sync));
            syncs.push(sync);
        }
        syncs
    }

    fn patterns(&mut self, texts: Vec<&str>, node: &Node, setting: &str) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in texts {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(e) => self.errors.push(node.place(&[setting, text]).mark(e.setting(setting))),
            }
        }
        patterns
    }

    fn models(&mut self, defaults: Option<&Node>, environment: &str) -> Vec<model::Model> {
        let macros = files::read_all(self.dir, "macros", &["sql"], false, self.errors);
        let templates = Templates::new(&macros, environment, self.errors);
        let mut models = Vec::new();
        for file in files::read_all(self.dir, "models", model::EXTENSIONS, true, self.errors) {
            self.name(file.stem(), &At::start_of(&file.name));
            models.extend(model::read(&file, defaults, (&self.variables, &templates), self.errors));
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    fn seeds(&mut self, spec: &ProjectSpec) -> Vec<Seed> {
        let mut seeds = Vec::new();
        for file in files::read_all(self.dir, "seeds", &["csv"], true, self.errors) {
            self.name(file.stem(), &At::start_of(&file.name));
            seeds.push(Seed::of(&file, &spec.defaults.model));
        }
        seeds.sort_by(|a, b| a.name.cmp(&b.name));
        seeds
    }

    fn commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for file in files::read_all(self.dir, "commands", YAML, false, self.errors) {
            let Some(raw) = self.or_note(yaml::parse(&file.name, &file.text, 1)) else { continue };
            let mut missing = Vec::new();
            let node = fill(&raw, &self.variables, &[], &mut missing);
            let Some(spec) = decode::<CommandSpec>(&node, &[], self.errors) else { continue };
            self.name(file.stem(), &At::start_of(&file.name));
            commands.extend(self.or_note(Command::of(file.stem(), spec, (&raw, &node), hash(&[&file.text]), missing)));
        }
        commands
    }

    fn jobs(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for file in files::read_all(self.dir, "jobs", YAML, false, self.errors) {
            if let Some((node, spec)) = self.decoded::<JobSpec>(&file) {
                self.name(file.stem(), &At::start_of(&file.name));
                jobs.push(Job { name: file.stem().to_owned(), spec, at: node.at });
            }
        }
        jobs
    }

    fn unit_tests(&mut self) -> Vec<UnitTest> {
        let mut tests = Vec::new();
        for file in files::read_all(self.dir, "tests", YAML, false, self.errors) {
            if let Some((node, mut specs)) = self.decoded::<BTreeMap<String, UnitTestSpec>>(&file) {
                for entry in node.entries() {
                    let spec = specs.remove(&entry.key);
                    tests.extend(spec.map(|spec| UnitTest { name: entry.key.clone(), spec, at: entry.at.clone() }));
                }
            }
        }
        tests
    }

    fn decoded<T: DeserializeOwned>(&mut self, file: &Text) -> Option<(Node, T)> {
        let raw = self.or_note(yaml::parse(&file.name, &file.text, 1))?;
        let mut missing = Vec::new();
        let node = fill(&raw, &self.variables, &[], &mut missing);
        self.errors.extend(missing.iter().map(Missing::error));
        let spec = decode(&node, &[], self.errors)?;
        Some((node, spec))
    }

    fn unique_names(&mut self, project: &Project) {
        let syncs = project.syncs.iter().map(|s| (&s.name, &s.at));
        let models = project.models.iter().map(|m| (&m.name, &m.at));
        let seeds = project.seeds.iter().map(|s| (&s.name, &s.at));
        let commands = project.commands.iter().map(|c| (&c.name, &c.at));
        let jobs = project.jobs.iter().map(|j| (&j.name, &j.at));
        let mut known: HashMap<&String, &At> = HashMap::new();
        for (name, at) in syncs.chain(models).chain(seeds).chain(commands).chain(jobs) {
            let first = *known.entry(name).or_insert(at);
            if !std::ptr::eq(first, at) {
                let error = twice("name", name, first, at);
                self.errors
                    .push(error.hint("names of syncs, models, seeds, commands and jobs are unique together: rename one of the files"));
            }
        }
    }

    /// Names stand in selections and in the destinations' markers, so they are kept simple.
    fn name(&mut self, name: &str, at: &At) {
        let simple = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.starts_with(['-', '.']) || !name.chars().all(simple) {
            let error = Error::new(Code::ConfigInvalid, "the name holds characters that names may not have").detail(format!("{name:?}"));
            self.errors.push(at.mark(error.hint("letters, digits, `_`, `-` and `.` are allowed")));
        }
    }
}

fn twice(what: &str, name: &str, first: &At, second: &At) -> Error {
    let error = Error::new(Code::ConfigInvalid, "a name is used twice");
    second.mark(error.detail(format!("the {what} `{name}` is also in {}:{}", first.file, first.line)))
}

/// Brings an older format up to date, one version at a time; refuses one that is newer than this program.
fn migrate(node: Node) -> trib_core::Result<Node> {
    /// The step at index `n` leads from version `n + 1` to `n + 2`.
    const STEPS: &[fn(Node) -> Node] = &[];
    let Some(version) = node.entry("version") else { return Ok(node) };
    let number = match &version.value.content {
        Content::Number(n) => n.as_u64(),
        // The decoder says that a whole number is wanted.
        _ => return Ok(node),
    };
    match number {
        Some(n) if (1..=u64::from(NEWEST)).contains(&n) => Ok(STEPS.iter().skip(n as usize - 1).fold(node, |node, step| step(node))),
        _ => {
            let error = Error::new(Code::ConfigInvalid, "this version of the project's format is not known")
                .detail(format!("this program knows versions up to {NEWEST}"))
                .setting("version")
                .hint("a newer `trib` has written the project: update this one");
            Err(version.value.at.mark(error))
        }
    }
}
