//! Objects that are written in one of several forms, which their Rust types can't say: a submission is flat or has steps,
//! a step has one command.

use serde_json::{Map, Value, json};

/// One form of an object.
struct Form {
    title: &'static str,
    /// What it needs, each with its schema there.
    needs: Vec<(&'static str, Value)>,
    /// What belongs to other forms.
    without: &'static [&'static str],
}

/// The schema `name`, told apart into its forms, if it has several.
pub(super) fn split(name: &str, schema: &Value) -> Option<Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let forms = match name {
        "Submission" => vec![
            Form {
                title: "One binary",
                needs: vec![
                    ("type", reference("JobType")),
                    (
                        "binary_url",
                        json!({"type": "string", "pattern": "^(https?://|file:///|blob:)[^\\x00-\\x1f\\x7f]*$"}),
                    ),
                    ("binary_sha256", reference("Digest")),
                ],
                without: &["steps", "env"],
            },
            Form {
                title: "Steps",
                needs: vec![(
                    "steps",
                    json!({"type": "array", "items": reference("Step"), "minItems": 1, "maxItems": executr_spec::MAX_STEPS}),
                )],
                without: &["binary_url", "binary_sha256", "arguments", "env_variables"],
            },
        ],
        "Step" => vec![
            Form {
                title: "A program",
                needs: vec![(
                    "argv",
                    json!({"type": "array", "minItems": 1, "items": {"type": "string"},
                        "prefixItems": [{"type": "string", "minLength": 1}]}),
                )],
                without: &["run", "binary"],
            },
            Form { title: "A script", needs: vec![("run", json!({"type": "string"}))], without: &["argv", "binary"] },
            Form { title: "A binary", needs: vec![("binary", reference("BinaryStep"))], without: &["argv", "run"] },
        ],
        _ => return None,
    };
    let forms: Vec<Value> = forms.iter().map(|form| form.of(schema)).collect();
    Some(json!({"description": schema["description"], "oneOf": forms}))
}

impl Form {
    fn of(&self, schema: &Value) -> Value {
        let mut properties: Map<String, Value> = schema["properties"].as_object().cloned().unwrap_or_default();
        if let Some(labels) = properties.get_mut("labels") {
            labels["maxProperties"] = executr_spec::MAX_LABELS.into();
        }
        for (name, needed) in &self.needs {
            properties.insert((*name).to_owned(), needed.clone());
        }
        for name in self.without {
            properties.insert((*name).to_owned(), json!({"type": "null"}));
        }
        let required: Vec<&str> = self.needs.iter().map(|(name, _)| *name).collect();
        json!({
            "title": self.title,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_needs_its_own_and_forbids_what_belongs_to_others() {
        let schema =
            json!({"description": "A step.", "properties": {"run": {}, "argv": {}, "name": {"type": "string"}}});
        let split = split("Step", &schema).expect("forms");
        let script = &split["oneOf"][1];
        assert_eq!(script["required"], json!(["run"]));
        assert_eq!(script["properties"]["argv"], json!({"type": "null"}));
        assert_eq!(script["properties"]["name"], json!({"type": "string"}));
        assert!(super::split("Priority", &schema).is_none());
    }
}
