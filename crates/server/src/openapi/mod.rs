//! The OpenAPI document, made from the routes themselves.

mod forms;

use serde_json::Value;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, License, OpenApiBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::options::Limits;
use crate::routes;

/// Routes that anybody may ask.
const OPEN: [&str; 2] = ["/api/v1/health", "/api/v1/openapi.json"];

/// What every route may answer besides what it says itself. The last column: only routes that are not open.
const ALWAYS: [(&str, &str, bool); 8] = [
    ("400", "The request can't be understood, or isn't allowed as it is.", false),
    ("401", "No token, or one that is not valid.", true),
    ("403", "The token's role doesn't allow it.", true),
    ("408", "The body didn't arrive in time.", true),
    ("413", "The body is too large.", true),
    ("500", "A fault of the server; its log has more under the request's id.", false),
    ("503", "The server, or its database, can't answer now. Trying again is right.", false),
    ("504", "It took too long.", false),
];

/// The document, as it is served.
pub(crate) fn json() -> Vec<u8> {
    serde_json::to_vec(&document()).expect("the document is made of strings")
}

/// The OpenAPI document of the whole API.
#[must_use]
pub fn document() -> Value {
    let (_, mut document) = routes::documented(&Limits::default()).split_for_parts();
    let about = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Executr")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Runs jobs: submit them, watch them, and be a worker. Every error is an `ApiError`."))
                .license(Some(License::new("AGPL-3.0-or-later")))
                .build(),
        )
        .build();
    document.info = about.info;

    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(
        "token".to_owned(),
        RefOr::T(SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("An access token, or a job's own. Not needed while the server has no tokens."))
                .build(),
        )),
    );
    components.schemas.insert(executr_api::ApiError::name().into_owned(), executr_api::ApiError::schema());
    let mut nested = Vec::new();
    executr_api::ApiError::schemas(&mut nested);
    components.schemas.extend(nested);

    for (path, item) in &mut document.paths.paths {
        let open = OPEN.contains(&path.as_str());
        for (method, operation) in operations(item) {
            complete(operation, open, method == HttpMethod::Head);
        }
    }

    let mut written = serde_json::to_value(&document).expect("the document is made of strings");
    if let Some(schemas) = written["components"]["schemas"].as_object_mut() {
        for (name, schema) in schemas {
            if let Some(split) = forms::split(name, schema) {
                *schema = split;
            }
        }
    }
    unsigned(&mut written);
    written
}

/// OpenAPI has no name for unsigned numbers of 32 bits: `int32` would end in the middle.
fn unsigned(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let from_zero = fields.get("minimum").and_then(Value::as_f64).is_some_and(|minimum| minimum >= 0.0);
            if from_zero && fields.get("format").is_some_and(|format| format == "int32") {
                fields.insert("format".to_owned(), "int64".into());
                fields.entry("maximum").or_insert(u32::MAX.into());
            }
            fields.values_mut().for_each(unsigned);
        }
        Value::Array(items) => items.iter_mut().for_each(unsigned),
        _ => {}
    }
}

fn complete(operation: &mut Operation, open: bool, bodiless: bool) {
    for (status, description, guarded) in ALWAYS {
        if guarded && open {
            continue;
        }
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
            let response = ResponseBuilder::new().description(description);
            let response = if bodiless {
                response
            } else {
                let schema = RefOr::Ref(Ref::from_schema_name(executr_api::ApiError::name()));
                response.content("application/json", ContentBuilder::new().schema(Some(schema)).build())
            };
            RefOr::T(response.build())
        });
    }
    if !open {
        operation.security =
            Some(vec![SecurityRequirement::default(), SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, item.get.as_mut()),
        (HttpMethod::Put, item.put.as_mut()),
        (HttpMethod::Post, item.post.as_mut()),
        (HttpMethod::Delete, item.delete.as_mut()),
        (HttpMethod::Head, item.head.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_openapi_3_1_and_has_every_route_of_the_original() {
        let document: serde_json::Value = serde_json::from_slice(&json()).expect("JSON");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        for (path, methods) in [
            ("/health", &["get"][..]),
            ("/metrics", &["get"]),
            ("/jobs", &["get", "post"]),
            ("/jobs/{id}", &["get", "delete"]),
            ("/jobs/claim", &["post"]),
            ("/jobs/{id}/heartbeat", &["put"]),
            ("/jobs/{id}/complete", &["put"]),
            ("/jobs/{id}/fail", &["put"]),
            ("/jobs/bulk", &["post"]),
            ("/jobs/bulk/cancel", &["post"]),
            ("/admin/stats", &["get"]),
            ("/admin/executors", &["get"]),
        ] {
            for method in methods {
                let operation = &document["paths"][format!("/api/v1{path}")][method];
                assert!(operation["responses"]["500"].is_object(), "{method} {path}: {operation}");
            }
        }
    }
}
