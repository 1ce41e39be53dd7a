//! A Meltano project: `meltano.yml` and, where they are there, its lock files.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use trib_core::Result;

use super::stream_map;
use super::yaml_text::text;
use super::{Imported, ReadFile};
use crate::yaml;

/// The project that does the same. `name` is what it is called when `meltano.yml` does not say. `run` are names of states: pairs that have been run, whether a job
/// has them or not.
pub fn import(meltano: &str, name: &str, run: &[&str], read: ReadFile<'_>) -> Result<Imported> {
    let root = yaml::parse("meltano.yml", meltano, 1)?.to_json();
    let mut import = Import { plugins: plugins(&root), root, read, out: Imported::default() };
    import.project(name);
    import.connections();
    let syncs = import.syncs(run);
    import.jobs(&syncs);
    import.left_out();
    Ok(import.out)
}

/// A plugin with its kind, what it inherits filled in.
struct Plugin {
    kind: &'static str,
    spec: Map<String, Value>,
}

struct Import<'a> {
    root: Value,
    plugins: BTreeMap<String, Plugin>,
    read: ReadFile<'a>,
    out: Imported,
}

const KINDS: [(&str, &str, &str); 3] =
    [("extractors", "tap", "extractors"), ("loaders", "target", "loaders"), ("mappers", "mapper", "mappers")];

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn string(value: &Map<String, Value>, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn plugins(root: &Value) -> BTreeMap<String, Plugin> {
    let none = Value::Null;
    let declared = root.get("plugins").unwrap_or(&none);
    let mut found: BTreeMap<String, Plugin> = BTreeMap::new();
    for (key, kind, _) in KINDS {
        for plugin in list(declared, key).iter().filter_map(Value::as_object) {
            let Some(name) = string(plugin, "name") else { continue };
            let parent = string(plugin, "inherit_from").and_then(|p| found.get(&p).map(|p| p.spec.clone()));
            let mut spec = parent.unwrap_or_default();
            let base = spec.get("name").cloned();
            overlay(&mut spec, plugin);
            // The program is the one of the plugin that is inherited from.
            if let Some(base) = base {
                spec.entry("base".to_owned()).or_insert(base);
            } else if let Some(from) = string(plugin, "inherit_from") {
                spec.insert("base".to_owned(), json!(from));
            }
            found.insert(name, Plugin { kind, spec });
        }
    }
    found
}

/// Maps merge, everything else is replaced.
fn overlay(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

impl Import<'_> {
    fn project(&mut self, name: &str) {
        let given = self.root.get("project_id").and_then(Value::as_str).filter(|id| !id.contains('-') || id.len() < 30);
        let mut project = Map::from_iter([("name".to_owned(), json!(given.unwrap_or(name)))]);
        let mut environments = Map::new();
        for environment in list(&self.root, "environments").to_vec() {
            let Some(name) = environment.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
            let mut said = Map::new();
            if let Some(vars) = environment.get("env").and_then(Value::as_object) {
                let vars: Map<String, Value> = vars.iter().map(|(k, v)| (k.clone(), json!(plain(v)))).collect();
                said.insert("vars".to_owned(), Value::Object(vars));
            }
            let mut connections = Map::new();
            let none = Value::Null;
            let overrides = environment.pointer("/config/plugins").unwrap_or(&none);
            for (key, ..) in KINDS {
                for plugin in list(overrides, key).iter().filter_map(Value::as_object) {
                    let Some(plugin_name) = string(plugin, "name") else { continue };
                    let place = format!("environment {name}, {plugin_name}");
                    let config = plugin.get("config").map(|c| self.config(c, &place));
                    if let Some(config) = config {
                        connections.insert(plugin_name.clone(), json!({"config": config}));
                    }
                    for key in plugin.keys().filter(|k| !matches!(k.as_str(), "name" | "config")) {
                        self.out.note(format!("{place}: {key} differs in this environment, which a sync cannot: make a sync for each"));
                    }
                }
            }
            if !connections.is_empty() {
                said.insert("connections".to_owned(), Value::Object(connections));
            }
            environments.insert(name, Value::Object(said));
        }
        if !environments.is_empty() {
            project.insert("environments".to_owned(), Value::Object(environments));
        }
        if let Some(default) = self.root.get("default_environment").and_then(Value::as_str).filter(|d| *d != "dev") {
            self.out.note(format!("the environment {default} was the default: set TRIB_ENV={default}, or say `--env {default}`"));
        }
        self.out.files.insert("tributary.yaml".to_owned(), text(&Value::Object(project)));
    }

    fn connections(&mut self) {
        let names: Vec<String> = self.plugins.iter().filter(|(_, p)| p.kind != "mapper").map(|(n, _)| n.clone()).collect();
        let mut connections = Map::new();
        for name in names {
            let (kind, spec) = (self.plugins[&name].kind, self.plugins[&name].spec.clone());
            let base = string(&spec, "base").unwrap_or_else(|| name.clone());
            let lock = self.lock(kind, &base, string(&spec, "variant").as_deref());
            let said = |key: &str| string(&spec, key).or_else(|| lock.as_ref().and_then(|l| string(l, key)));
            let mut connection = Map::from_iter([("connector".to_owned(), json!("singer"))]);
            let program = said("executable").unwrap_or_else(|| base.clone());
            match program.contains('/') {
                true => {
                    connection.insert(kind.to_owned(), json!(base));
                    connection.insert("command".to_owned(), json!([program]));
                    if !program.starts_with('/') {
                        self.out.note(format!("{name}: its program {program} is looked for in the new project's folder"));
                    }
                }
                false => drop(connection.insert(kind.to_owned(), json!(program))),
            }
            match said("pip_url") {
                Some(pip) if !program.contains('/') => {
                    let pip = self.reference(&pip, &name);
                    drop(connection.insert("pip".to_owned(), json!(pip)));
                }
                Some(_) => {}
                None if program.contains('/') => {}
                None => self.out.note(format!("{name}: nothing says what to install it from: add `pip:`, or have {program} on the PATH")),
            }
            let mut config = match spec.get("config") {
                Some(config) => self.config(config, &name),
                None => Map::new(),
            };
            self.from_dotenv(&name, lock.as_ref(), &mut config);
            // The sync does what they say.
            config.remove("stream_maps");
            if config.remove("stream_map_config").is_some() {
                self.out.note(format!("{name}: stream_map_config is not carried over"));
            }
            if !config.is_empty() {
                connection.insert("config".to_owned(), Value::Object(config));
            }
            for key in ["metadata", "schema"] {
                if let Some(value) = spec.get(key).filter(|v| v.is_object()) {
                    connection.insert(key.to_owned(), value.clone());
                }
            }
            for key in ["catalog", "state", "use_cached_catalog", "python", "config_files", "commands", "env"] {
                match (key, spec.get(key)) {
                    ("catalog" | "python", Some(value)) => drop(connection.insert(key.to_owned(), value.clone())),
                    ("env", Some(Value::Object(env))) => {
                        let env: Map<String, Value> =
                            env.iter().map(|(k, v)| (k.clone(), json!(self.reference(&plain(v), &name)))).collect();
                        connection.insert("env".to_owned(), Value::Object(env));
                    }
                    (_, Some(_)) => self.out.note(format!("{name}: {key} is not carried over")),
                    (_, None) => {}
                }
            }
            connections.insert(name, Value::Object(connection));
        }
        self.out.files.insert("connections.yaml".to_owned(), text(&Value::Object(connections)));
    }

    /// What `meltano add` has written down about a plugin.
    fn lock(&self, kind: &str, base: &str, variant: Option<&str>) -> Option<Map<String, Value>> {
        let folder = KINDS.iter().find(|(_, k, _)| *k == kind).map(|(_, _, folder)| *folder)?;
        let named = variant.map(|v| format!("plugins/{folder}/{base}--{v}.lock"));
        let text = named.and_then(|path| (self.read)(&path)).or_else(|| (self.read)(&format!("plugins/{folder}/{base}.lock")))?;
        serde_json::from_str::<Value>(&text).ok()?.as_object().cloned()
    }

    /// Settings that `.env` has, in the form in which Meltano looks for them: `TAP_GITHUB_AUTH_TOKEN`.
    fn from_dotenv(&mut self, name: &str, lock: Option<&Map<String, Value>>, config: &mut Map<String, Value>) {
        let Some(dotenv) = (self.read)(".env") else { return };
        let prefix = format!("{}_", name.to_uppercase().replace('-', "_"));
        let settings: Vec<String> = lock
            .map(|l| list(&Value::Object(l.clone()), "settings").iter().filter_map(|s| Some(s.get("name")?.as_str()?.to_owned())).collect())
            .unwrap_or_default();
        for variable in dotenv.lines().filter_map(|line| line.trim().trim_start_matches("export ").split_once('=').map(|(k, _)| k.trim())) {
            let Some(setting) = variable.strip_prefix(&prefix) else { continue };
            let known = settings.iter().find(|s| s.to_uppercase().replace(['-', '.'], "_") == setting);
            let setting = known.cloned().unwrap_or_else(|| setting.to_lowercase());
            if !config.contains_key(&setting) {
                nest(config, &setting, json!(format!("${{{variable}}}")));
            }
        }
    }

    /// Settings with dots in their names nest; `$NAME` becomes `${NAME}`.
    fn config(&mut self, config: &Value, place: &str) -> Map<String, Value> {
        let mut nested = Map::new();
        for (name, value) in config.as_object().into_iter().flatten() {
            let value = self.references(value, place);
            nest(&mut nested, name, value);
        }
        nested
    }

    fn references(&mut self, value: &Value, place: &str) -> Value {
        match value {
            Value::String(text) => json!(self.reference(text, place)),
            Value::Array(values) => values.iter().map(|v| self.references(v, place)).collect(),
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), self.references(v, place))).collect(),
            other => other.clone(),
        }
    }

    fn reference(&mut self, text: &str, place: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let braced = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, after) = match braced {
                Some((name, after)) => (name, after),
                None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
            };
            if name.is_empty() {
                out.push('$');
                continue;
            }
            match name {
                "MELTANO_PROJECT_ROOT" => out.push('.'),
                _ => {
                    if name.starts_with("MELTANO_") {
                        self.out.note(format!("{place}: nobody sets ${name} any more"));
                    }
                    out.push_str(&format!("${{{name}}}"));
                }
            }
            rest = after;
        }
        out + rest
    }

    /// A sync for each pair of tap and target that a schedule, a job or nothing else names. Returns their names.
    fn syncs(&mut self, run: &[&str]) -> Vec<String> {
        let pairs = run.iter().filter_map(|name| name.split_once("-to-"));
        let mut chains: Vec<Vec<String>> = pairs.map(|(tap, target)| vec![tap.to_owned(), target.to_owned()]).collect();
        for schedule in list(&self.root, "schedules") {
            if let (Some(tap), Some(target)) =
                (schedule.get("extractor").and_then(Value::as_str), schedule.get("loader").and_then(Value::as_str))
            {
                chains.push(vec![tap.to_owned(), target.to_owned()]);
            }
        }
        for job in list(&self.root, "jobs").to_vec() {
            for task in tasks(&job) {
                chains.push(task.split_whitespace().map(str::to_owned).collect());
            }
        }
        // A mapping belongs to a chain, which says more than a pair.
        chains.sort_by_key(|chain| std::cmp::Reverse(chain.len()));
        let mut names = Vec::new();
        for chain in chains {
            self.chain(&chain, &mut names);
        }
        let kind = |kind: &str| self.plugins.iter().filter(|(_, p)| p.kind == kind).map(|(n, _)| n.clone()).collect::<Vec<_>>();
        let (taps, targets) = (kind("tap"), kind("target"));
        for tap in taps {
            if names.iter().any(|n: &String| n.starts_with(&format!("{tap}-to-"))) {
                continue;
            }
            match targets.as_slice() {
                [target] => self.chain(&[tap, target.clone()], &mut names),
                _ => self.out.note(format!("{tap}: no schedule and no job says where it loads: there is no sync for it")),
            }
        }
        names
    }

    /// The taps and targets of a chain such as `tap-a mapping target-b dbt-c:run`.
    fn chain(&mut self, chain: &[String], names: &mut Vec<String>) {
        let mut from: Option<String> = None;
        let mut mappings: Vec<String> = Vec::new();
        for step in chain {
            match self.plugins.get(step).map(|p| p.kind) {
                Some("tap") => (from, mappings) = (Some(step.clone()), Vec::new()),
                Some("target") => {
                    let Some(tap) = from.take() else { continue };
                    let name = sync_name(&tap, step);
                    if !names.contains(&name) {
                        self.sync(&name, &tap, step, &mappings);
                        names.push(name);
                    }
                }
                _ if from.is_some() => mappings.push(step.clone()),
                _ => self.out.note(format!("{step}: this step of a job is not carried over")),
            }
        }
    }

    fn sync(&mut self, name: &str, tap: &str, target: &str, mappings: &[String]) {
        let spec = self.plugins[tap].spec.clone();
        let schema = string(&spec, "load_schema").or_else(|| string(&spec, "namespace")).unwrap_or_else(|| tap.replace('-', "_"));
        let (mut streams, mut exclude) = (Map::new(), Vec::new());
        let select = spec.get("select").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![json!("*.*")]);
        for rule in &select {
            self.select(name, rule.as_str().unwrap_or_default(), &mut streams, &mut exclude);
        }
        let mut maps: Vec<Map<String, Value>> = mappings.iter().filter_map(|m| self.mapping(m)).collect();
        maps.extend([tap, target].into_iter().filter_map(|p| stream_maps(&self.plugins[p].spec)));
        for maps in maps {
            stream_map::apply(&maps, name, &mut streams, &mut exclude, &mut self.out);
        }
        let mut sync = Map::from_iter([
            ("from".to_owned(), json!(tap)),
            ("to".to_owned(), json!(target)),
            ("into".to_owned(), json!(format!("{schema}.{{table}}"))),
            // As the tap itself and the connection's metadata say.
            ("defaults".to_owned(), json!({"read": "incremental", "cursor": "_tap_state"})),
        ]);
        if !exclude.is_empty() {
            sync.insert("exclude".to_owned(), Value::Array(exclude));
        }
        sync.insert("streams".to_owned(), Value::Object(streams));
        self.out.files.insert(format!("syncs/{name}.yaml"), text(&Value::Object(sync)));
    }

    fn mapping(&mut self, name: &str) -> Option<Map<String, Value>> {
        for plugin in self.plugins.values().filter(|p| p.kind == "mapper") {
            for mapping in list(&Value::Object(plugin.spec.clone()), "mappings") {
                if mapping.get("name").and_then(Value::as_str) == Some(name) {
                    let maps = mapping.pointer("/config/stream_maps").and_then(Value::as_object).cloned();
                    if maps.is_none() {
                        self.out.note(format!("the mapping {name} has no stream maps, and is not carried over"));
                    }
                    return maps;
                }
            }
        }
        self.out.note(format!("{name}: neither a plugin nor a mapping, and not carried over"));
        None
    }

    /// One rule of `select`: `stream.column`, both patterns, with `!` in front to leave out.
    fn select(&mut self, sync: &str, rule: &str, streams: &mut Map<String, Value>, exclude: &mut Vec<Value>) {
        let (out, pattern) = rule.strip_prefix('!').map_or((false, rule), |p| (true, p));
        let (stream, column) = split(pattern);
        let globs = column.contains(['*', '?', '[']) && column != "*";
        let top = column.split('.').next().unwrap_or_default().to_owned();
        let mut entry = streams.get(&stream).and_then(Value::as_object).cloned().unwrap_or_default();
        match (out, column.as_str()) {
            _ if globs || (column.contains('.') && out) => {
                return self.out.note(format!("{sync}: the rule {rule:?} chooses columns by a pattern, which a sync cannot: name them"));
            }
            (true, "*") => return exclude.push(json!(stream)),
            (true, _) => {
                let mut columns = entry.get("columns").and_then(Value::as_object).cloned().unwrap_or_default();
                columns.insert(top, json!({"drop": true}));
                entry.insert("columns".to_owned(), Value::Object(columns));
            }
            (false, "*") => drop(entry.remove("select")),
            (false, _) => {
                let all = streams.contains_key(&stream) && !entry.contains_key("select");
                let mut columns = entry.get("select").and_then(Value::as_array).cloned().unwrap_or_default();
                if !all && !columns.contains(&json!(top)) {
                    columns.push(json!(top));
                    entry.insert("select".to_owned(), Value::Array(columns));
                }
            }
        }
        streams.insert(stream, Value::Object(entry));
    }

    fn jobs(&mut self, syncs: &[String]) {
        for schedule in list(&self.root, "schedules").to_vec() {
            let Some(name) = schedule.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
            let chains: Vec<Vec<String>> = match schedule.get("job").and_then(Value::as_str) {
                Some(job) => {
                    let jobs = list(&self.root, "jobs");
                    let found = jobs.iter().find(|j| j.get("name").and_then(Value::as_str) == Some(job));
                    found.map(tasks).unwrap_or_default().iter().map(|t| t.split_whitespace().map(str::to_owned).collect()).collect()
                }
                None => {
                    let part = |key: &str| schedule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                    vec![vec![part("extractor"), part("loader")]]
                }
            };
            let select: Vec<String> = syncs.iter().filter(|s| chains.iter().any(|chain| runs(chain, s))).cloned().collect();
            let interval = schedule.get("interval").and_then(Value::as_str).unwrap_or("@once");
            let mut job = Map::from_iter([("select".to_owned(), json!(select))]);
            match cron(interval) {
                Some(cron) => drop(job.insert("schedule".to_owned(), json!({"cron": cron, "timezone": "UTC"}))),
                None => self.out.note(format!("the schedule {name} has the interval {interval}, which is none: start it by hand")),
            }
            if select.is_empty() {
                self.out.note(format!("the schedule {name} runs nothing that was carried over"));
                continue;
            }
            self.out.files.insert(format!("jobs/{name}.yaml"), text(&Value::Object(job)));
        }
    }

    fn left_out(&mut self) {
        let plugins = self.root.get("plugins").and_then(Value::as_object).cloned().unwrap_or_default();
        for (kind, list) in plugins.iter().filter(|(k, _)| !KINDS.iter().any(|(known, ..)| known == k)) {
            for plugin in list.as_array().into_iter().flatten() {
                let name = plugin.get("name").and_then(Value::as_str).unwrap_or("?");
                self.out.note(format!("{name} ({kind}) is not carried over"));
            }
        }
        const KNOWN: [&str; 12] = [
            "version",
            "project_id",
            "plugins",
            "environments",
            "default_environment",
            "schedules",
            "jobs",
            "send_anonymous_usage_stats",
            "venv",
            "elt",
            "cli",
            "hub_url",
        ];
        let others: Vec<String> =
            self.root.as_object().into_iter().flatten().map(|(k, _)| k.clone()).filter(|k| !KNOWN.contains(&k.as_str())).collect();
        for key in others {
            self.out.note(format!("`{key}` is not carried over"));
        }
    }
}

/// The sync that takes the place of `meltano run TAP TARGET`: named as Meltano names its state.
pub fn sync_name(tap: &str, target: &str) -> String {
    format!("{tap}-to-{target}")
}

fn runs(chain: &[String], sync: &str) -> bool {
    chain.iter().enumerate().any(|(i, tap)| chain[i + 1..].iter().any(|target| sync_name(tap, target) == sync))
}

fn tasks(job: &Value) -> Vec<String> {
    let flat = |task: &Value| match task {
        Value::Array(steps) => steps.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    list(job, "tasks").iter().map(flat).collect()
}

fn stream_maps(spec: &Map<String, Value>) -> Option<Map<String, Value>> {
    spec.get("config")?.get("stream_maps")?.as_object().cloned()
}

/// A pattern's stream and column. A dot within a name has a backslash before it.
fn split(pattern: &str) -> (String, String) {
    let bytes = pattern.as_bytes();
    let at = (0..bytes.len()).find(|i| bytes[*i] == b'.' && (*i == 0 || bytes[i - 1] != b'\\'));
    let clean = |text: &str| text.replace("\\.", ".");
    match at {
        Some(at) => (clean(&pattern[..at]), clean(&pattern[at + 1..])),
        None => (clean(pattern), "*".to_owned()),
    }
}

fn nest(config: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => drop(config.insert(name.to_owned(), value)),
        Some((outer, inner)) => {
            let entry = config.entry(outer.to_owned()).or_insert_with(|| json!({}));
            if let Some(map) = entry.as_object_mut() {
                nest(map, inner, value);
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn cron(interval: &str) -> Option<&str> {
    Some(match interval {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@once" | "@manual" | "@none" => return None,
        cron => cron,
    })
}
