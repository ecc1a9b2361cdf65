//! How values are described that may be written as a text or as a number.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type};

/// The schema of a value that is written as a text of the form `pattern`, or as a number of the given kind from 0 on.
pub(crate) fn text_or_number(description: &str, pattern: &str, number: Type, example: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(Some(pattern)).build();
    let number = ObjectBuilder::new().schema_type(SchemaType::Type(number)).minimum(Some(0)).build();
    let either = AnyOfBuilder::new()
        .description(Some(description))
        .item(text)
        .item(number)
        .examples([serde_json::Value::from(example)])
        .build();
    RefOr::T(Schema::AnyOf(either))
}
