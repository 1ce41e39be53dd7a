//! Events of OpenLineage (<https://openlineage.io/spec/2-0-2/OpenLineage.json>) as JSON. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use trib_core::Error;
use trib_engine::lineage::Step;
use trib_store::{Tested, Verdict};

/// Who says it.
const PRODUCER: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/tree/v", env!("CARGO_PKG_VERSION"));
const SPEC: &str = "https://openlineage.io/spec";

/// How a run of a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Start,
    Running,
    Complete,
    Fail,
    Abort,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Start => "START",
            Kind::Running => "RUNNING",
            Kind::Complete => "COMPLETE",
            Kind::Fail => "FAIL",
            Kind::Abort => "ABORT",
        }
    }
}

/// A table or stream, where it lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

/// A table that is read or written.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub place: Place,
    /// Name, type and description of each column.
    pub columns: Vec<(String, String, Option<String>)>,
    pub description: Option<String>,
    /// By column, the columns that it comes from.
    pub from: BTreeMap<String, Vec<(Place, String, Step)>>,
    /// Rows that were written.
    pub rows: Option<u64>,
    /// What tests of it have found.
    pub tested: Vec<Tested>,
    /// The columns that each test is about, by its name.
    pub about: BTreeMap<String, Vec<String>>,
}

/// One run of a job, and of which other it is a part.
#[derive(Clone, Debug)]
pub struct JobRun {
    pub namespace: String,
    pub job: String,
    pub run: String,
    /// Job and run.
    pub parent: Option<(String, String)>,
    pub job_facets: Map<String, Value>,
}

pub fn event(kind: Kind, at: DateTime<Utc>, of: &JobRun, error: Option<&Error>, inputs: &[Dataset], outputs: &[Dataset]) -> Value {
    let mut run_facets = Map::new();
    if let Some((job, run)) = &of.parent {
        let parent = json!({"run": {"runId": run}, "job": {"namespace": of.namespace, "name": job}});
        run_facets.insert("parent".to_owned(), facet("1-2-0/ParentRunFacet", parent));
    }
    let engine = json!({"name": "tributary", "version": env!("CARGO_PKG_VERSION")});
    run_facets.insert("processing_engine".to_owned(), facet("1-1-1/ProcessingEngineRunFacet", engine));
    if let Some(error) = error {
        let message = json!({"message": error.to_string(), "programmingLanguage": "RUST"});
        run_facets.insert("errorMessage".to_owned(), facet("1-0-1/ErrorMessageRunFacet", message));
    }
    json!({
        "eventType": kind.as_str(),
        "eventTime": at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "run": {"runId": of.run, "facets": run_facets},
        "job": {"namespace": of.namespace, "name": of.job, "facets": of.job_facets},
        "inputs": inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(output).collect::<Vec<_>>(),
        "producer": PRODUCER,
        "schemaURL": format!("{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"),
    })
}

/// What kind of job it is: `RUN`, `SYNC`, `MODEL`, `SEED` or `TEST`.
pub fn job_type(kind: &str) -> (String, Value) {
    let value = json!({"processingType": "BATCH", "integration": "TRIBUTARY", "jobType": kind});
    ("jobType".to_owned(), facet("2-0-4/JobTypeJobFacet", value))
}

pub fn documentation(text: &str) -> (String, Value) {
    ("documentation".to_owned(), facet("1-1-0/DocumentationJobFacet", json!({"description": text})))
}

pub fn sql(query: &str) -> (String, Value) {
    ("sql".to_owned(), facet("1-1-0/SQLJobFacet", json!({"query": query})))
}

pub fn source_code(language: &str, code: &str) -> (String, Value) {
    ("sourceCode".to_owned(), facet("1-0-1/SourceCodeJobFacet", json!({"language": language, "sourceCode": code})))
}

pub fn ownership(owner: &str) -> (String, Value) {
    ("ownership".to_owned(), facet("1-0-1/OwnershipJobFacet", json!({"owners": [{"name": owner}]})))
}

fn input(dataset: &Dataset) -> Value {
    let mut facets = Map::new();
    if !dataset.tested.is_empty() {
        let assertions: Vec<Value> = dataset.tested.iter().flat_map(|t| assertions(t, dataset.about.get(&t.test))).collect();
        let assertions = facet("1-1-0/DataQualityAssertionsDatasetFacet", json!({"assertions": assertions}));
        facets.insert("dataQualityAssertions".to_owned(), assertions);
    }
    let Place { namespace, name } = &dataset.place;
    json!({"namespace": namespace, "name": name, "facets": dataset_facets(dataset), "inputFacets": facets})
}

fn output(dataset: &Dataset) -> Value {
    let mut facets = Map::new();
    if let Some(rows) = dataset.rows {
        facets.insert("outputStatistics".to_owned(), facet("1-0-2/OutputStatisticsOutputDatasetFacet", json!({"rowCount": rows})));
    }
    let Place { namespace, name } = &dataset.place;
    json!({"namespace": namespace, "name": name, "facets": dataset_facets(dataset), "outputFacets": facets})
}

fn dataset_facets(dataset: &Dataset) -> Map<String, Value> {
    let mut facets = Map::new();
    if !dataset.columns.is_empty() {
        let field = |(name, data_type, description): &(String, String, Option<String>)| match description {
            Some(description) => json!({"name": name, "type": data_type, "description": description}),
            None => json!({"name": name, "type": data_type}),
        };
        let fields: Vec<Value> = dataset.columns.iter().map(field).collect();
        facets.insert("schema".to_owned(), facet("1-2-0/SchemaDatasetFacet", json!({"fields": fields})));
    }
    if let Some(text) = &dataset.description {
        facets.insert("documentation".to_owned(), facet("1-1-0/DocumentationDatasetFacet", json!({"description": text})));
    }
    if !dataset.from.is_empty() {
        let fields: Map<String, Value> = dataset
            .from
            .iter()
            .map(|(column, from)| (column.clone(), json!({"inputFields": from.iter().map(input_field).collect::<Vec<_>>()})))
            .collect();
        facets.insert("columnLineage".to_owned(), facet("1-2-0/ColumnLineageDatasetFacet", json!({"fields": fields})));
    }
    facets
}

fn input_field((place, column, how): &(Place, String, Step)) -> Value {
    let subtype = match how {
        Step::Identity => "IDENTITY",
        Step::Transformed => "TRANSFORMATION",
        Step::Aggregated => "AGGREGATION",
    };
    let transformations = json!([{"type": "DIRECT", "subtype": subtype}]);
    json!({"namespace": place.namespace, "name": place.name, "field": column, "transformations": transformations})
}

/// One for each column that the test is about, or one for the table. A test that could not be asked has not succeeded.
fn assertions(tested: &Tested, about: Option<&Vec<String>>) -> Vec<Value> {
    let kind = tested.test.split('(').next().unwrap_or(&tested.test);
    let one = json!({
        "assertion": kind, "success": tested.verdict == Verdict::Passed, "severity": tested.severity, "name": tested.test,
        "actual": format!("{} failing rows", tested.failures),
    });
    match about.map(Vec::as_slice) {
        None | Some([]) => vec![one],
        Some(columns) => {
            let of = |column: &String| {
                let mut one = one.clone();
                one["column"] = column.clone().into();
                one
            };
            columns.iter().map(of).collect()
        }
    }
}

fn facet(schema: &str, mut value: Value) -> Value {
    let name = schema.rsplit('/').next().unwrap_or(schema);
    value["_producer"] = PRODUCER.into();
    value["_schemaURL"] = format!("{SPEC}/facets/{schema}.json#/$defs/{name}").into();
    value
}
