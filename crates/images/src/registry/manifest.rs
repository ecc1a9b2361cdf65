//! What manifests, indexes and configurations say, as much of it as is needed. They are read leniently where makers of
//! images differ, and not at all where two readings would differ.

use executr_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::image::{ImageConfig, Platform};
use crate::reference::{oci_digest, parse_digest};

/// The types of what is sent and fetched.
pub(crate) mod media_type {
    pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(crate) const ALL: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
}

/// More layers than any engine takes.
const MOST_LAYERS: usize = 500;

/// A blob, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    #[serde(with = "written")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

mod written {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::{Digest, oci_digest, parse_digest};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&oci_digest(*digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_digest(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no SHA-256 digest")))
    }
}

/// An image's manifest: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default = "unsaid")]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

fn unsaid() -> String {
    media_type::MANIFEST.to_owned()
}

/// What a registry gave for a name.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// An image.
    Image(Manifest),
    /// Several, of which this one is for the platform.
    Index(Digest),
    /// Several, none of them for the platform; these there are.
    Others(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(with = "written")]
    digest: Digest,
    #[serde(default)]
    platform: EntryPlatform,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EntryPlatform {
    os: String,
    architecture: String,
    variant: String,
}

/// Reads a manifest or an index. An index of one platform is looked into no further here.
pub(crate) fn parse(bytes: &[u8], platform: &Platform) -> Result<Parsed, String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let has = |name| value.get(name).is_some();
    match (has("manifests"), has("layers") || has("config")) {
        // Somebody else might read it the other way.
        (true, true) => Err("it is a manifest and an index at once".to_owned()),
        (true, false) => {
            let index = Index::deserialize(&value).map_err(|error| format!("no index: {error}"))?;
            Ok(choose(&index, platform))
        }
        (false, true) => {
            let manifest = Manifest::deserialize(&value).map_err(|error| format!("no manifest: {error}"))?;
            manifest.check()?;
            Ok(Parsed::Image(manifest))
        }
        (false, false) if has("fsLayers") => {
            Err("it has the first schema of manifests, which nobody should trust any more".to_owned())
        }
        (false, false) => Err("it is no image".to_owned()),
    }
}

fn choose(index: &Index, platform: &Platform) -> Parsed {
    let fitting =
        |entry: &&IndexEntry| entry.platform.os == platform.os && entry.platform.architecture == platform.architecture;
    // The plainest first: a variant may want more than this processor has.
    let plainness = |entry: &&IndexEntry| match entry.platform.variant.as_str() {
        "" => 0,
        "v1" | "v8" => 1,
        _ => 2,
    };
    match index.manifests.iter().filter(fitting).min_by_key(plainness) {
        Some(entry) => Parsed::Index(entry.digest),
        None => {
            let named = index.manifests.iter().map(|IndexEntry { platform, .. }| match platform.variant.as_str() {
                "" => format!("{}/{}", platform.os, platform.architecture),
                variant => format!("{}/{}/{variant}", platform.os, platform.architecture),
            });
            let mut offered: Vec<_> = named.filter(|name| name != "unknown/unknown" && name != "/").collect();
            offered.sort();
            offered.dedup();
            if offered.is_empty() {
                offered.push("none".to_owned());
            }
            Parsed::Others(offered)
        }
    }
}

impl Manifest {
    fn check(&self) -> Result<(), String> {
        if self.schema_version != 2 {
            return Err(format!("its schema version is {}, not 2", self.schema_version));
        }
        if self.layers.len() > MOST_LAYERS {
            return Err(format!("it has {} layers, more than {MOST_LAYERS}", self.layers.len()));
        }
        for layer in &self.layers {
            let kind = layer.media_type.as_str();
            if kind.contains("foreign") || kind.contains("nondistributable") || kind.contains("encrypted") {
                return Err(format!("a layer of the type {kind} can't be had"));
            }
            if !kind.contains("tar") {
                return Err(format!("{kind} is no type of a layer: it is no container image"));
            }
        }
        Ok(())
    }
}

/// An image's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Configuration {
    os: String,
    architecture: String,
    config: Option<Running>,
    rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Running {
    user: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Configuration {
    /// Reads it, for an image of so many layers.
    pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<Self, String> {
        let this: Self = serde_json::from_slice(bytes).map_err(|error| format!("no configuration: {error}"))?;
        if this.rootfs.diff_ids.len() != layers {
            let known = this.rootfs.diff_ids.len();
            return Err(format!("its manifest has {layers} layers, its configuration {known}"));
        }
        if let Some(wrong) = this.rootfs.diff_ids.iter().find(|id| parse_digest(id).is_none()) {
            return Err(format!("`{wrong}` is no SHA-256 digest"));
        }
        Ok(this)
    }

    /// The digests of the layers as they are unpacked, lowest first.
    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.rootfs.diff_ids.iter().filter_map(|id| parse_digest(id)).collect()
    }

    /// What it is made for, where it says so.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let is_said = !self.os.is_empty() && !self.architecture.is_empty();
        is_said.then(|| Platform { os: self.os.clone(), architecture: self.architecture.clone() })
    }

    /// How it wants to be run.
    pub(crate) fn running(self) -> ImageConfig {
        let running = self.config.unwrap_or_default();
        ImageConfig {
            user: running.user.unwrap_or_default(),
            env: running.env.unwrap_or_default().into_iter().map(Into::into).collect(),
            workdir: running.working_dir.unwrap_or_default(),
            entrypoint: running.entrypoint.unwrap_or_default(),
            command: running.cmd.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const B: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn read(value: &serde_json::Value) -> Result<Parsed, String> {
        let platform = Platform { os: "linux".to_owned(), architecture: "arm64".to_owned() };
        parse(&serde_json::to_vec(value).unwrap(), &platform)
    }

    fn entry(digest: &str, architecture: &str, variant: &str) -> serde_json::Value {
        json!({"mediaType": media_type::MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture, "variant": variant}})
    }

    #[test]
    fn an_index_gives_what_fits_or_says_what_there_is() {
        let found = read(&json!({"schemaVersion": 2, "manifests": [entry(B, "arm64", "v9"), entry(A, "arm64", "v8")]}));
        assert!(matches!(found, Ok(Parsed::Index(digest)) if oci_digest(digest) == A), "{found:?}");
        let found =
            read(&json!({"manifests": [entry(A, "amd64", ""), entry(B, "arm", "v7"), entry(B, "unknown", "")]}));
        let Ok(Parsed::Others(offered)) = found else { panic!("{found:?}") };
        assert_eq!(offered, ["linux/amd64", "linux/arm/v7", "linux/unknown"]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_or_is_no_image_is_refused() {
        let blob = |kind: &str| json!({"mediaType": kind, "digest": A, "size": 3});
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let image = |layer: &str| json!({"schemaVersion": 2, "config": blob("c"), "layers": [blob(layer)]});
        assert!(matches!(read(&image(tar)), Ok(Parsed::Image(_))));
        let mut both = image(tar);
        both["manifests"] = json!([]);
        let mut short = image(tar);
        short["layers"][0]["digest"] = json!("sha256:12");
        let foreign = image("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let chart = image("application/vnd.cncf.helm.chart.content.v1");
        for value in [both, short, foreign, chart, json!({"fsLayers": []}), json!({}), json!([])] {
            assert!(read(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_configuration_has_a_digest_for_each_layer_and_may_leave_all_else_out() {
        let bytes = br#"{"config": {"Env": null, "User": "ann", "Cmd": ["sh"]}, "rootfs": {"diff_ids": []}}"#;
        let configuration = Configuration::parse(bytes, 0).unwrap();
        assert_eq!(configuration.platform(), None);
        let running = configuration.running();
        assert_eq!((running.user.as_str(), running.command.len(), running.env.len()), ("ann", 1, 0));
        assert!(Configuration::parse(bytes, 1).unwrap_err().contains("1 layers"));
        assert!(Configuration::parse(br#"{"rootfs": {"diff_ids": ["x"]}}"#, 1).is_err());
    }
}
