//! The JSON Schema says what the parser says.

use executr_spec::workflow::{Workflow, schema};
use serde_json::{Value, json};

use super::plans::EVERYTHING;

/// Whether a value fits a schema of the few words that ours is made of. Small on purpose: it shares nothing with what writes
/// the schema.
fn fits(value: &Value, schema: &Value, root: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema == &Value::Bool(true) };
    schema.iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "title" | "description" | "$defs" | "examples" => true,
        "$ref" => {
            let pointer = rule.as_str().unwrap().trim_start_matches('#');
            fits(value, root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere")), root)
        }
        "type" => match rule {
            Value::Array(types) => types.iter().any(|of| is_a(value, of.as_str().unwrap())),
            of => is_a(value, of.as_str().unwrap()),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        // What the pattern says is tested where amounts are read.
        "pattern" => true,
        "anyOf" => rule.as_array().unwrap().iter().any(|of| fits(value, of, root)),
        "oneOf" => rule.as_array().unwrap().iter().filter(|of| fits(value, of, root)).count() == 1,
        "required" => {
            let object = value.as_object();
            object.is_none_or(|object| {
                rule.as_array().unwrap().iter().all(|key| object.contains_key(key.as_str().unwrap()))
            })
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(item, rule, root))),
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(key, value)| rule.get(key).is_none_or(|rule| fits(value, rule, root)))
        }),
        "patternProperties" => true,
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let listed = |key: &str| schema.get("properties").is_some_and(|keys| keys.get(key).is_some());
            let own = |key: &str| schema.contains_key("patternProperties") && key.starts_with("x-");
            object.iter().filter(|(key, _)| !listed(key) && !own(key)).all(|(_, value)| fits(value, rule, root))
        }),
        other => panic!("the schema uses `{other}`"),
    })
}

fn is_a(value: &Value, of: &str) -> bool {
    match of {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the schema has the type `{other}`"),
    }
}

#[test]
fn the_parser_and_the_schema_agree() {
    let schema = schema();
    let job = |job: Value| json!({ "jobs": { "a": job } });
    for (file, right) in [
        (job(json!({"steps": ["x"]})), true),
        (job(json!({"steps": [{"run": "x", "timeout": 3}, {"argv": ["x", 1]}], "retry": null})), true),
        (job(json!({"steps": ["x"], "matrix": {"os": ["a"], "include": [{"os": "b"}]}})), true),
        (json!({"x-mine": [], "jobs": {"a": {"steps": ["x"]}}}), true),
        (json!({"jobs": {"a": {"steps": ["x"]}}, "mine": 1}), false),
        (job(json!({"steps": "x"})), false),
        (job(json!({})), false),
        (job(json!({"steps": [{"run": "x", "argv": ["x"]}]})), false),
        (job(json!({"steps": [{"name": "x"}]})), false),
        (job(json!({"steps": ["x"], "retry": 0})), false),
        (job(json!({"steps": ["x"], "priority": "urgent"})), false),
        (job(json!({"steps": ["x"], "env": {"A": null}})), false),
        (job(json!({"steps": ["x"], "executor": {"name": "x"}})), false),
        (job(json!({"steps": ["x"], "matrix": {"os": "a"}})), false),
        (json!({"name": "x"}), false),
        (json!([]), false),
    ] {
        assert_eq!(fits(&file, &schema, &schema), right, "{file}");
        assert_eq!(Workflow::parse(&file.to_string()).is_ok(), right, "{file}");
    }
}

#[test]
fn a_file_with_every_key_fits_and_uses_every_key() {
    let schema = schema();
    let file = executr_json(EVERYTHING);
    assert!(fits(&file, &schema, &schema));
    let mut keys = Vec::new();
    gather(&schema, "", &mut keys);
    assert!(keys.len() > 60, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !EVERYTHING.contains(&format!("{key}:"))).collect();
    assert!(missing.is_empty(), "not in the file of every key: {missing:?}");
}

/// All keys the schema names.
fn gather(schema: &Value, at: &str, keys: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (word, value) in map {
                if word == "properties" && at != "properties" {
                    keys.extend(value.as_object().unwrap().keys().cloned());
                }
                gather(value, word, keys);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, at, keys)),
        _ => {}
    }
}

#[test]
fn the_reference_shows_every_key() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/workflows.md")).unwrap();
    let mut keys = Vec::new();
    gather(&schema(), "", &mut keys);
    let missing: Vec<_> =
        keys.iter().filter(|key| !page.contains(&format!("{key}:")) && !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "not in docs/workflows.md: {missing:?}");
}

#[test]
fn the_files_of_the_reference_are_right() {
    for name in ["workflows.md", "expressions.md"] {
        let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(path).unwrap();
        let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let mut files = 0;
        for block in blocks.filter(|block| block.contains("jobs:")) {
            files += 1;
            if let Err(problems) = Workflow::parse(block) {
                panic!("{name}:\n{block}\n{}", problems.of_file("block"));
            }
        }
        assert!(files > 0, "{name} shows files");
    }
}

/// The file as JSON, by way of the plan's own reader: every key keeps its text.
fn executr_json(yaml: &str) -> Value {
    use saphyr::{LoadableYamlNode as _, Yaml};
    to_json(&Yaml::load_from_str(yaml).unwrap().remove(0))
}

fn to_json(yaml: &saphyr::Yaml<'_>) -> Value {
    use saphyr::{Scalar, Yaml};
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.to_string().into(),
        Yaml::Sequence(items) => items.iter().map(to_json).collect(),
        Yaml::Mapping(map) => {
            map.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), to_json(value))).collect()
        }
        other => panic!("{other:?}"),
    }
}
