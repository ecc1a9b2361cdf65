//! A store and what fills it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use executr_images::{
    Access, Changes, Compression, ImageStore, LayerRecipe, Part, Progress, Recipe, Reference, Silent, StoreOptions,
    Update,
};
use executr_tests::registry::Registry;
use tempfile::TempDir;

/// A directory with a store, and things to build images of.
pub(crate) struct Rig {
    pub(crate) temp: TempDir,
    pub(crate) store: ImageStore,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    pub(crate) fn with(options: StoreOptions) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = ImageStore::open(temp.path().join("store"), options).unwrap();
        Self { temp, store }
    }

    /// A second store that has nothing yet.
    pub(crate) fn other(&self, name: &str) -> ImageStore {
        ImageStore::open(self.temp.path().join(name), StoreOptions::default()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The same, as it was where it is there.
    fn directory_unless(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        if self.path(name).exists() { self.path(name) } else { self.directory(name, files) }
    }

    /// A directory with these files in it.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = self.path(name);
        fs::create_dir_all(&directory).unwrap();
        for (name, content) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    /// An image of a directory with odd things in it, and one of a file.
    pub(crate) fn recipe(&self) -> Recipe {
        let base = self.directory("base", &[("etc/passwd", "root:x:0:0::/:/bin/sh\n"), ("bin/tool", "#!/bin/sh\n")]);
        fs::set_permissions(base.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        drop(symlink("tool", base.join("bin/link")));
        drop(fs::hard_link(base.join("bin/tool"), base.join("bin/twin")));
        fs::write(base.join("long".repeat(30)), "long").unwrap();
        let app = self.directory_unless("app", &[("run", "one")]);
        Recipe {
            layers: vec![layer(&base, "/"), layer(&app, "/opt/app")],
            changes: Changes {
                user: Some("1000:1000".to_owned()),
                env: vec![("A".to_owned(), "b c".to_owned())],
                workdir: Some("/opt/app".to_owned()),
                entrypoint: Some(vec!["/bin/tool".to_owned()]),
                ..Changes::default()
            },
            ..Recipe::default()
        }
    }

    /// Builds and pushes that image.
    pub(crate) async fn filled(&self, registry: &Registry, name: &str, compression: Compression) -> Reference {
        let name = reference(registry, name);
        let recipe = Recipe { compression, ..self.recipe() };
        self.store.build(&name, &recipe, &Access::default(), &silent()).await.unwrap();
        self.store.push(&name, &name, &Access::default(), &silent()).await.unwrap();
        name
    }
}

pub(crate) fn layer(from: &Path, to: &str) -> LayerRecipe {
    LayerRecipe { parts: vec![Part::Directory { from: from.to_owned(), to: to.to_owned() }] }
}

pub(crate) fn reference(registry: &Registry, name: &str) -> Reference {
    format!("{}/{name}", registry.host()).parse().unwrap()
}

pub(crate) fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// Remembers what it hears.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Heard {
    fn update(&self, update: Update<'_>) {
        let said = match update {
            Update::Again { why } => why.to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(said);
    }
}

/// All files below a directory, but for directories.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all.sort();
    all
}
