//! What a job may use of its worker's machine.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::quantity::{Bytes, Millicores};

/// Bounds within which a job is kept. A worker that can't keep them doesn't get the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Processor time per time: `2`, `0.5` or `500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Millicores>,
    /// Memory of the whole process tree: `512Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processes and threads of the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub pids: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    cpu: Option<Millicores>,
    #[serde(default)]
    memory: Option<Bytes>,
    #[serde(default)]
    pids: Option<u32>,
}

/// Takes an object alone. What is derived would take `[null, null]` too, since no field is required.
impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Resources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `cpu`, `memory` and `pids`")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Resources, A::Error> {
                let Written { cpu, memory, pids } = Written::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(Resources { cpu, memory, pids })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_an_object_of_known_fields() {
        let resources: Resources = serde_json::from_str(r#"{"cpu":"500m","pids":3}"#).expect("resources");
        assert_eq!((resources.cpu, resources.pids), (Some(Millicores(500)), Some(3)));
        assert_eq!(serde_json::to_string(&resources).expect("JSON"), r#"{"cpu":"500m","pids":3}"#);
        for text in ["[null,null]", "7", r#"{"gpu":1}"#] {
            assert!(serde_json::from_str::<Resources>(text).is_err(), "{text}");
        }
    }
}
