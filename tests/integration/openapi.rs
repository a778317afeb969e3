//! The API's document, as it was last agreed to: a change of it is a change for those who call us, and is to be seen in
//! a diff. `UPDATE_OPENAPI=1 cargo test --test integration openapi` writes the new one.

use std::fs;
use std::path::Path;

#[test]
fn the_openapi_document_is_the_one_under_snapshot() {
    let document = sportello::api::openapi().to_pretty_json().unwrap() + "\n";
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&snapshot, &document).unwrap();
    }
    let agreed = fs::read_to_string(&snapshot).unwrap_or_default();
    assert!(
        agreed == document,
        "the API changed: look at it with UPDATE_OPENAPI=1 cargo test --test integration openapi && git diff tests/openapi.json"
    );
}

#[test]
fn every_operation_has_a_summary_a_unique_name_and_an_audience() {
    let document = serde_json::to_value(sportello::api::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut names = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place} has no summary");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{place} needs one audience");
            assert!(operation["responses"]["default"].is_object(), "{place} does not say how it fails");
            names.push(operation["operationId"].as_str().unwrap_or_default().to_owned());
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "operation ids repeat: {names:?}");
    assert!(count >= 25, "only {count} operations");
}

#[test]
fn every_field_is_described() {
    let document = serde_json::to_value(sportello::api::openapi()).unwrap();
    let mut bare = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, shape) in schema["properties"].as_object().into_iter().flatten() {
            let is_tag = field == "type" || field == "why";
            // A nullable reference carries its description beside the reference.
            let is_described = shape.to_string().contains("\"description\"") || shape.get("$ref").is_some();
            if !is_described && !is_tag {
                bare.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(bare.is_empty(), "no description: {bare:?}");
}
