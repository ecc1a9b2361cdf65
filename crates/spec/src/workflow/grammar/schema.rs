//! The grammar as JSON Schema, for editors and other programs.

use serde_json::{Map, Value, json};

use super::{Object, Others, Shape, WORKFLOW};

/// The JSON Schema (draft 2020-12) of a workflow file.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut schema = object(&WORKFLOW, &mut definitions);
    if let Value::Object(top) = &mut schema {
        top.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        top.insert("title".to_owned(), "Executr workflow".into());
        top.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn object(object: &'static Object, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in object.keys {
        let mut property = shape(key.shape, definitions);
        if let Value::Object(property) = &mut property {
            property.insert("description".to_owned(), key.about.into());
        }
        properties.insert(key.name.to_owned(), property);
    }
    let required: Vec<_> = object.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !object.one_of.is_empty() {
        schema["oneOf"] = object.one_of.iter().map(|name| json!({ "required": [name] })).collect();
    }
    match object.others {
        Others::Refused => {}
        Others::Own => schema["patternProperties"] = json!({ "^x-": true }),
        Others::Named(of) => schema["additionalProperties"] = shape(*of, definitions),
    }
    schema
}

fn shape(of: Shape, definitions: &mut Map<String, Value>) -> Value {
    match of {
        Shape::Text => json!({ "type": "string" }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Amount { like, pattern } => json!({
            "anyOf": [{ "type": "string", "pattern": pattern }, { "type": "number", "minimum": 0 }],
            "examples": [like],
        }),
        Shape::Nothing => json!({ "type": "null" }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::List(of) => json!({ "type": "array", "items": shape(*of, definitions) }),
        Shape::Map(of) => json!({ "type": "object", "additionalProperties": shape(*of, definitions) }),
        Shape::ObjectOr(of, other) => {
            json!({ "anyOf": [shape(Shape::Object(of), definitions), shape(*other, definitions)] })
        }
        Shape::OneOf(shapes) => {
            let either: Vec<_> = shapes.iter().map(|of| shape(*of, definitions)).collect();
            json!({ "anyOf": either })
        }
        Shape::Object(of) => {
            let name = definition(of.name);
            if !definitions.contains_key(&name) {
                // Stands there already while it is written: a shape may hold itself.
                definitions.insert(name.clone(), Value::Null);
                let written = object(of, definitions);
                definitions.insert(name.clone(), written);
            }
            json!({ "$ref": format!("#/$defs/{name}") })
        }
    }
}

/// `a source of variables` as `source_of_variables`.
fn definition(name: &str) -> String {
    let bare = name.trim_start_matches("an ").trim_start_matches("a ");
    bare.chars().filter(|c| *c != '`').map(|c| if c == ' ' { '_' } else { c }).collect()
}
