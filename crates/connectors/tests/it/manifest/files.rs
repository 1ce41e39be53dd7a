//! Files that records point to.

use std::path::Path;

use serde_json::{Value, json};
use trib_connectors::manifest::{FileReference, Selection};
use trib_core::Code;
use trib_testkit::stand_in::{Answer, StandIn};

use super::{Given, manifest_of, read_selected};

/// Three tickets; the file of the third is gone.
fn tickets() -> StandIn {
    StandIn::start(|asked| match asked.path.as_str() {
        "/items" => {
            let row = |id: i64, name: &str| json!({"id": id, "name": name, "links": {"file": format!("/files/{id}")}});
            Answer::json(&json!({"rows": [row(1, "a.txt"), row(2, "b/c.txt"), row(3, "gone.txt")]}))
        }
        "/files/1" => Answer::text(200, "first"),
        "/files/2" => Answer { body: vec![0, 255, 10], ..Answer::status(200) },
        _ => Answer::status(404),
    })
}

fn uploader(api: &StandIn, name: &str) -> Value {
    let target = json!({"type": "DpathExtractor", "field_path": ["links", "file"]});
    let lost = json!({"type": "DefaultErrorHandler", "response_filters": [{"type": "HttpResponseFilter", "http_codes": [404], "action": "IGNORE"}]});
    let requester = json!({"type": "HttpRequester", "url_base": api.url(), "path": "{{ download_target }}", "error_handler": lost,
        "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['key'] }}"}});
    json!({"file_uploader": {"type": "FileUploader", "requester": requester, "download_target_extractor": target, "filename_extractor": name}})
}

async fn read(api: &StandIn, stream: Value, folder: Option<&Path>) -> Given {
    let manifest = manifest_of(api, json!({}), json!({}), stream);
    let selection = Selection { stream: "items".to_owned(), files: folder.map(Path::to_owned), ..Selection::default() };
    read_selected(&manifest, json!({"key": "k1"}), selection).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_says_where_its_file_lies() {
    let (api, folder) = (tickets(), tempfile::tempdir().unwrap());
    let given = read(&api, uploader(&api, "{{ record.id }}/{{ record['name'] }}/"), Some(folder.path())).await;
    assert!(given.errors.is_empty(), "{:?}", given.errors);
    let file = |relative: &str, size| {
        let staging_file_url = folder.path().join(relative).display().to_string();
        Some(FileReference { staging_file_url, source_file_relative_path: relative.to_owned(), file_size_bytes: size })
    };
    assert_eq!(given.files, [file("items/1/a.txt", 5), file("items/2/b/c.txt", 3), None]);
    assert_eq!(std::fs::read(folder.path().join("items/1/a.txt")).unwrap(), b"first");
    assert_eq!(std::fs::read(folder.path().join("items/2/b/c.txt")).unwrap(), [0, 255, 10]);
    let downloads: Vec<_> = api.take().into_iter().filter(|a| a.path.starts_with("/files")).collect();
    assert!(downloads.len() == 3 && downloads.iter().all(|a| a.header("authorization") == Some("Bearer k1")));
    // Whoever wants no files gets the records alone.
    assert!(read(&api, uploader(&api, "x"), None).await.files.is_empty());
    assert_eq!(api.take().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_name_that_leads_elsewhere_is_not_written() {
    let (api, outside) = (tickets(), tempfile::tempdir().unwrap());
    let given = read(&api, uploader(&api, "../../{{ record['name'] }}"), Some(&outside.path().join("files"))).await;
    assert_eq!(given.errors[0].code(), Code::DataInvalid, "{:?}", given.errors);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let mut without = uploader(&api, "x");
    without["file_uploader"]["download_target_extractor"]["field_path"] = json!(["nothing"]);
    let given = read(&api, without, Some(outside.path())).await;
    assert_eq!(given.errors[0].code(), Code::DataInvalid, "{:?}", given.errors);
    assert!(given.errors[0].to_string().contains("id, name, links"), "{:?}", given.errors);
}
