//! `$parameters` handed down from component to component, and types that go without saying.

use serde_json::{Map, Value};

pub(super) const PARAMETERS: &str = "$parameters";

/// What a component in this place is when it does not say so itself.
const DEFAULT_TYPES: &[(&str, &str)] = &[
    ("AddFields.fields", "AddedFieldDefinition"),
    ("ApiObject.discover_fields", "FieldDiscovery"),
    ("ApiObject.discover_objects", "ObjectDiscovery"),
    ("ApiObject.look_up", "RecordLookUp"),
    ("ApiObject.operations", "ApiOperation"),
    ("ApiOperation.answers", "RecordAnswers"),
    ("ApiOperation.batch", "RecordBatching"),
    ("ApiOperation.job", "BulkJob"),
    ("ApiOperation.requester", "HttpRequester"),
    ("BulkJob.close", "HttpRequester"),
    ("BulkJob.create", "HttpRequester"),
    ("BulkJob.poll", "HttpRequester"),
    ("BulkJob.refused", "JobResults"),
    ("BulkJob.taken", "JobResults"),
    ("BulkJob.upload", "HttpRequester"),
    ("CheckRequest.requester", "HttpRequester"),
    ("CompositeErrorHandler.error_handlers", "DefaultErrorHandler"),
    ("ConfigComponentsResolver.components_mapping", "ComponentMappingDefinition"),
    ("ConfigComponentsResolver.stream_config", "StreamConfig"),
    ("CursorPagination.decoder", "JsonDecoder"),
    ("CustomPartitionRouter.parent_stream_configs", "ParentStreamConfig"),
    ("DatetimeBasedCursor.end_datetime", "MinMaxDatetime"),
    ("DatetimeBasedCursor.end_time_option", "RequestOption"),
    ("DatetimeBasedCursor.start_datetime", "MinMaxDatetime"),
    ("DatetimeBasedCursor.start_time_option", "RequestOption"),
    ("DeclarativeSource.check", "CheckStream"),
    ("DeclarativeSource.objects", "ApiObject"),
    ("DeclarativeSource.spec", "Spec"),
    ("DeclarativeSource.streams", "DeclarativeStream"),
    ("DeclarativeStream.retriever", "SimpleRetriever"),
    ("DeclarativeStream.schema_loader", "JsonFileSchemaLoader"),
    ("DefaultErrorHandler.response_filters", "HttpResponseFilter"),
    ("DefaultPaginator.decoder", "JsonDecoder"),
    ("DefaultPaginator.page_size_option", "RequestOption"),
    ("DpathExtractor.decoder", "JsonDecoder"),
    ("DpathExtractor.record_expander", "RecordExpander"),
    ("DynamicDeclarativeStream.components_resolver", "ConfigComponentsResolver"),
    ("DynamicDeclarativeStream.stream_template", "DeclarativeStream"),
    ("DynamicSchemaLoader.retriever", "SimpleRetriever"),
    ("HttpComponentsResolver.components_mapping", "ComponentMappingDefinition"),
    ("HttpComponentsResolver.retriever", "SimpleRetriever"),
    ("HttpRequester.error_handler", "DefaultErrorHandler"),
    ("ListPartitionRouter.request_option", "RequestOption"),
    ("ParentStreamConfig.request_option", "RequestOption"),
    ("ParentStreamConfig.stream", "DeclarativeStream"),
    ("RecordExpander.parent_fields", "ParentFieldPath"),
    ("RecordSelector.extractor", "DpathExtractor"),
    ("RecordSelector.record_filter", "RecordFilter"),
    ("SchemaTypeIdentifier.types_map", "TypesMap"),
    ("FieldDiscovery.retriever", "SimpleRetriever"),
    ("JobResults.retriever", "SimpleRetriever"),
    ("ObjectDiscovery.retriever", "SimpleRetriever"),
    ("RecordLookUp.retriever", "SimpleRetriever"),
    ("SimpleRetriever.paginator", "NoPagination"),
    ("SimpleRetriever.record_selector", "RecordSelector"),
    ("SimpleRetriever.requester", "HttpRequester"),
    ("SubstreamPartitionRouter.parent_stream_configs", "ParentStreamConfig"),
];

/// The same for components that name a Python class.
const CUSTOM_TYPES: &[(&str, &str)] = &[
    ("CompositeErrorHandler.backoff_strategies", "CustomBackoffStrategy"),
    ("DeclarativeStream.retriever", "CustomRetriever"),
    ("DeclarativeStream.transformations", "CustomTransformation"),
    ("DefaultErrorHandler.backoff_strategies", "CustomBackoffStrategy"),
    ("DefaultPaginator.pagination_strategy", "CustomPaginationStrategy"),
    ("HttpRequester.authenticator", "CustomAuthenticator"),
    ("HttpRequester.error_handler", "CustomErrorHandler"),
    ("RecordSelector.extractor", "CustomRecordExtractor"),
    ("SimpleRetriever.partition_router", "CustomPartitionRouter"),
];

/// A manifest whose references are resolved, with types filled in and parameters handed down.
pub(super) fn propagate(manifest: Map<String, Value>) -> Map<String, Value> {
    component("", manifest, &Map::new(), false)
}

/// The same for a stream that was made from a template. `outer_wins` says whose parameters count when both name one.
pub(super) fn propagate_stream(stream: Map<String, Value>, outer_wins: bool) -> Map<String, Value> {
    component("", stream, &Map::new(), outer_wins)
}

fn component(place: &str, mut own: Map<String, Value>, outer: &Map<String, Value>, outer_wins: bool) -> Map<String, Value> {
    if !own.contains_key("type") {
        let table = if own.contains_key("class_name") { CUSTOM_TYPES } else { DEFAULT_TYPES };
        if let Some((_, found)) = table.iter().find(|(known, _)| *known == place) {
            own.insert("type".to_owned(), Value::String((*found).to_owned()));
        }
    }
    let given = match own.shift_remove(PARAMETERS) {
        Some(Value::Object(given)) => given,
        _ => Map::new(),
    };
    let mut parameters;
    if outer_wins {
        parameters = given;
        parameters.extend(outer.clone());
    } else {
        parameters = outer.clone();
        parameters.extend(given);
    }
    // A JSON schema is no component, and neither is a map of properties one of which is called `type`.
    match own.get("type") {
        Some(Value::Array(_) | Value::Object(_)) => return own,
        Some(Value::String(t)) if t == "object" => return own,
        None => {
            let nested = |v: &Value| v.get("type").is_some_and(truthy);
            for value in own.values_mut().filter(|v| nested(v)) {
                descend(place, value, &parameters, outer_wins);
            }
            return own;
        }
        _ => {}
    }
    for (name, value) in &parameters {
        if !own.get(name).is_some_and(truthy) {
            own.insert(name.clone(), value.clone());
        }
    }
    let kind = own.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (name, value) in &mut own {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            continue;
        }
        let place = format!("{kind}.{name}");
        // A parameter is not handed into the field of its own name: that would never end.
        let excluded = parameters.shift_remove(name);
        match value {
            Value::Array(items) => {
                items.iter_mut().filter(|i| i.is_object()).for_each(|item| descend(&place, item, &parameters, outer_wins));
            }
            value => descend(&place, value, &parameters, outer_wins),
        }
        if let Some(excluded) = excluded.filter(truthy) {
            parameters.insert(name.clone(), excluded);
        }
    }
    if !parameters.is_empty() {
        own.insert(PARAMETERS.to_owned(), Value::Object(parameters));
    }
    own
}

fn descend(place: &str, value: &mut Value, parameters: &Map<String, Value>, outer_wins: bool) {
    if let Value::Object(map) = value {
        *map = component(place, std::mem::take(map), parameters, outer_wins);
    }
}

/// As Python sees it.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(manifest: Value) -> Value {
        let Value::Object(map) = manifest else { panic!() };
        Value::Object(propagate(map))
    }

    #[test]
    fn parameters_go_down_and_the_nearest_wins() {
        let result = run(json!({"type": "DeclarativeSource", "streams": [{
            "$parameters": {"name": "n", "path": "outer", "retriever": "never here"},
            "retriever": {"requester": {"path": "", "url_base": "u", "$parameters": {"tag": "inner"}}},
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {"type": {"type": "string"}}}},
        }]}));
        let stream = &result["streams"][0];
        assert_eq!((&stream["type"], &stream["name"]), (&json!("DeclarativeStream"), &json!("n")));
        let requester = &stream["retriever"]["requester"];
        assert_eq!(requester["type"], "HttpRequester");
        assert_eq!(requester["path"], "outer", "an empty field is filled");
        assert_eq!(requester[PARAMETERS], json!({"name": "n", "path": "outer", "tag": "inner"}));
        assert_eq!(stream["schema_loader"]["schema"], json!({"type": "object", "properties": {"type": {"type": "string"}}}));
    }

    #[test]
    fn classes_make_custom_components() {
        let result = run(json!({"type": "DeclarativeStream", "retriever": {"class_name": "source_x.R"}}));
        assert_eq!(result["retriever"]["type"], "CustomRetriever");
    }
}
