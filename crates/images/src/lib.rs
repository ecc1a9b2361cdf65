//! Container images without a container engine.
//!
//! - [`Reference`]: what an image is called;
//! - [`Access`]: how registries are reached: credentials, mirrors, certificate authorities. Said once for pulls here and
//!   for engines that pull themselves;
//! - [`ImageStore`]: images of a user, pulled, verified and unpacked once for all jobs and processes, bounded;
//! - [`Image`]: one of them, leased: what runs it needs;
//! - [`Recipe`]: what an image is built of, reproducibly;
//! - [`Progress`]: what happens meanwhile.
//!
//! Within: `registry` speaks to registries, through mirrors; `layer` turns the bytes of a layer into a directory that an
//! overlay mount takes, and refuses what would leave it; `store` is the directory that all processes of a user share; `build` makes
//! images of files, `export` writes them out, loads them into engines and pushes them.
//!
//! What a registry or a layer says is hostile until its digest and its limits were checked. Nothing here mounts or runs an
//! image, and nothing reads the environment or a home directory: paths and values come as arguments.

mod access;
mod build;
mod error;
mod export;
mod image;
mod layer;
mod progress;
mod reference;
mod registry;
mod store;

pub use access::{Access, AccessError, CredentialSource, Login, Mirror};
pub use build::{BuildError, Built, Changes, Compression, LayerRecipe, Part, Recipe};
pub use error::ImageError;
pub use export::{EngineAddress, Sent};
pub use image::{Image, ImageConfig, Platform};
pub use layer::{LayerError, Limits, Ownership, Refusal};
pub use progress::{Progress, Silent, Update};
pub use reference::{Reference, ReferenceError};
pub use registry::RegistryError;
pub use store::{ImageStore, Listed, Pull, Removed, StoreOptions};
