//! The API's document, as it was last agreed to: a change of it is a change for those who call us, and is to be seen in
//! a diff. `UPDATE_OPENAPI=1 cargo test --test integration openapi` writes the new one.

use std::fs;
use std::path::Path;

use serde_json::Value;

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
fn every_field_has_a_description_with_its_unit_and_an_example() {
    let document = serde_json::to_value(sportello::api::openapi()).unwrap();
    let manual = Manual { document: &document };
    let mut wrong = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if schema["description"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{name}: no description"));
        }
        manual.look_at_members(name, schema, &mut wrong);
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let place = format!("{place} {}", parameter["name"]);
                manual.look_at_field(&place, parameter, &parameter["schema"], &mut wrong);
            }
            manual.look_at_bodies(&format!("{place} body"), &operation["requestBody"], &mut wrong);
            for (status, response) in operation["responses"].as_object().unwrap() {
                manual.look_at_bodies(&format!("{place} {status}"), response, &mut wrong);
                for (name, header) in response["headers"].as_object().into_iter().flatten() {
                    manual.look_at_field(&format!("{place} {status} {name}"), header, &header["schema"], &mut wrong);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields are not explained:\n{}", wrong.len(), wrong.join("\n"));
}

/// The document, read as by someone who writes a client.
struct Manual<'d> {
    document: &'d Value,
}

impl Manual<'_> {
    /// Every member of an object, also where there are several kinds of it.
    fn look_at_members(&self, name: &str, schema: &Value, wrong: &mut Vec<String>) {
        for kind in ["oneOf", "allOf", "anyOf"] {
            for schema in schema[kind].as_array().into_iter().flatten() {
                self.look_at_members(name, schema, wrong);
            }
        }
        for (field, shape) in schema["properties"].as_object().into_iter().flatten() {
            // The member that tells several kinds apart is explained by its value, and each kind says what it is.
            if shape["enum"].as_array().is_some_and(|values| values.len() == 1) && schema["description"].is_string() {
                continue;
            }
            self.look_at_field(&format!("{name}.{field}"), shape, shape, wrong);
        }
    }

    fn look_at_bodies(&self, place: &str, told: &Value, wrong: &mut Vec<String>) {
        let bodies = told["content"].as_object();
        if bodies.is_some() && description(told).is_empty() {
            wrong.push(format!("{place}: no description"));
        }
        for (content_type, body) in bodies.into_iter().flatten() {
            if body["example"].is_null() && body["examples"].is_null() && !self.has_example(&body["schema"]) {
                wrong.push(format!("{place}, {content_type}: no example"));
            }
        }
    }

    /// A field, a parameter or a header: `told` is what is said of it, `shape` its schema.
    fn look_at_field(&self, place: &str, told: &Value, shape: &Value, wrong: &mut Vec<String>) {
        let description = description(told);
        if description.is_empty() {
            wrong.push(format!("{place}: no description"));
        }
        if told["example"].is_null() && told["examples"].is_null() && !self.has_example(shape) {
            wrong.push(format!("{place}: no example"));
        }
        let is = |kind: &str| {
            shape["type"] == kind || shape["type"].as_array().is_some_and(|all| all.contains(&kind.into()))
        };
        let is_time = shape["format"] == "date-time";
        if is_time && !description.contains("RFC 3339") {
            wrong.push(format!("{place}: a time without its format: «{description}»"));
        }
        if let Some(example) = told["example"].as_str().filter(|_| is_time)
            && example.parse::<jiff::Timestamp>().is_err()
        {
            wrong.push(format!("{place}: an example that is no time: {example}"));
        }
        if (is("integer") || is("number")) && !UNITS.iter().any(|unit| has_word(description, unit)) {
            wrong.push(format!("{place}: a number without a unit: «{description}»"));
        }
    }

    /// Whether a value can be imagined: by an example, by listed values, or by those of its parts.
    fn has_example(&self, shape: &Value) -> bool {
        if !shape["example"].is_null() || !shape["examples"].is_null() || shape["enum"].is_array() {
            return true;
        }
        if let Some(name) = shape["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/schemas/")) {
            let schema = &self.document["components"]["schemas"][name];
            // The members of an object are looked at themselves.
            return schema["properties"].is_object() || self.has_example(schema);
        }
        let kinds = ["oneOf", "allOf", "anyOf"].iter().find_map(|kind| shape[*kind].as_array());
        if let Some(kinds) = kinds {
            return kinds
                .iter()
                .all(|kind| kind["type"] == "null" || kind["properties"].is_object() || self.has_example(kind));
        }
        shape["items"].is_object() && self.has_example(&shape["items"])
    }
}

/// What numbers are measured in, or that they only count something or name a place in a list.
const UNITS: [&str; 9] =
    ["milliseconds", "seconds", "hours", "percent", "bytes", "number", "most", "how many", "status code"];

/// What is said of a field; of a nullable reference, beside the reference.
fn description(told: &Value) -> &str {
    let own = told["description"].as_str();
    let beside = || told["oneOf"].as_array()?.iter().find_map(|kind| kind["description"].as_str());
    own.or_else(beside).unwrap_or_default()
}

fn has_word(description: &str, word: &str) -> bool {
    description.to_lowercase().contains(word)
}
