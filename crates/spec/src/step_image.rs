//! The image of a step that runs in a container of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a step's own container is made of, and who it runs as there. Written as the image's name alone where nothing else is
/// said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenImage", into = "WrittenImage")]
pub struct StepImage {
    /// Its name, as the executor's `image` has it.
    pub name: String,
    /// As whom the step runs: `USER` or `USER:GROUP`, numbers or names of the image; the image's own user without.
    pub user: Option<String>,
    /// Variables above the image's own and the executor's `container_env`, below all others.
    pub container_env: BTreeMap<String, String>,
}

/// As it is written.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = StepImage)]
pub(crate) enum WrittenImage {
    Name(String),
    Settings(Settings),
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StepImageSettings)]
pub(crate) struct Settings {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    container_env: BTreeMap<String, String>,
}

impl From<WrittenImage> for StepImage {
    fn from(written: WrittenImage) -> Self {
        match written {
            WrittenImage::Name(name) => Self { name, ..Self::default() },
            WrittenImage::Settings(Settings { name, user, container_env }) => Self { name, user, container_env },
        }
    }
}

impl From<StepImage> for WrittenImage {
    fn from(image: StepImage) -> Self {
        let StepImage { name, user, container_env } = image;
        if user.is_none() && container_env.is_empty() {
            return Self::Name(name);
        }
        Self::Settings(Settings { name, user, container_env })
    }
}

/// What is wrong with a name of an image, if anything; a registry may find more.
pub(crate) fn wrong_image(name: &str) -> Option<&'static str> {
    (name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()))
        .then_some("is no name of an image; write one like `debian:12` or `registry.example/team/image@sha256:…`")
}

/// What is wrong with a container's user, if anything; the image may lack it.
pub(crate) fn wrong_user(user: &str) -> Option<String> {
    let wrong = user.is_empty()
        || user.starts_with(':')
        || user.contains(|c: char| c.is_whitespace() || c.is_control())
        || user.matches(':').count() > 1;
    wrong.then(|| format!("`{}` is no user; write `USER` or `USER:GROUP`, names or numbers", user.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_name_or_more() {
        let read = |text: &str| serde_json::from_str::<StepImage>(text);
        let image = read(r#""debian:12""#).expect("a name");
        assert_eq!(
            (image.name.as_str(), serde_json::to_string(&image).expect("JSON")),
            ("debian:12", r#""debian:12""#.into())
        );
        let text = r#"{"name":"debian","user":"1000","container_env":{"A":"1"}}"#;
        let image = read(text).expect("settings");
        assert_eq!((image.user.as_deref(), serde_json::to_string(&image).expect("JSON")), (Some("1000"), text.into()));
        for wrong in [r#"{"user":"1"}"#, r#"{"name":"a","image":"b"}"#, "1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_users_that_can_t_be_are_told() {
        assert!(wrong_image("a:1").is_none() && wrong_user("ann:1").is_none());
        assert!(["", "a b", "a\n"].into_iter().all(|name| wrong_image(name).is_some()));
        assert!(["", ":1", "a:b:c", "a b"].into_iter().all(|user| wrong_user(user).is_some()));
    }
}
