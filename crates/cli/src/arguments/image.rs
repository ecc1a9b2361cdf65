//! `executr image`: images without a container engine.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use executr_images::{Compression, EngineAddress, Mirror, Reference};

use super::values::{self, OutputForm};

/// `executr image`
#[derive(Debug, Args)]
#[command(
    about = "Build, pull, push and list container images, without a container engine",
    long_about = "Builds, pulls, pushes and lists container images, without a container engine. Images are kept once for all \
        jobs of their user, below the data directory, where containers without a daemon take them from.",
    after_help = "Examples:
  executr image build -t registry.example/team/app --program target/release/app --push
  executr image build -t app --from debian:12 --layer deps/:/opt/deps --layer app/:/opt/app --load
  executr image pull alpine:3.20
  executr image list"
)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    Build(Box<ImageBuildArgs>),
    Pull(Box<ImagePullArgs>),
    Push(Box<ImagePushArgs>),
    List(ImageListArgs),
    Rm(ImageRmArgs),
}

/// `executr image build`
#[derive(Debug, Args)]
#[command(
    about = "Build an image of directories, files and static programs",
    long_about = "Builds an image of directories, files and static programs, and prints its name with its digest. The same \
        files give the same digest, on any machine and at any time: times are 1970, owners are root, the order is fixed.\n\n\
        Each --layer is a layer, in the order in which they are written; all files are one upon those, all programs one \
        upon that. So put first what changes rarely: a layer whose files haven't changed since the last build here is taken as \
        it is, and registries and engines that have it don't get it again.\n\n\
        The image stays in the store; --push, --load and --out bring it elsewhere as well.",
    after_help = "Examples:
  executr image build -t registry.example/team/app --program target/release/app --push
  executr image build -t app --from debian:12 --layer deps/:/opt/deps --layer app/:/opt/app --load
  executr image build -t app --layer root/ --user 1000 --entrypoint /bin/app --out oci:layout -- --port 80
  executr image build -t app --layer root/ --out docker-archive:app.tar"
)]
pub(crate) struct ImageBuildArgs {
    /// What to call it: NAME or NAME:TAG, behind a registry or not
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(crate) name: Reference,
    /// The image it lies upon; without one it has only what is named here
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<Reference>,
    /// A directory whose content is a layer, at the root of the image or where TARGET says; may be repeated
    #[arg(long = "layer", value_name = "DIR[:TARGET]", value_parser = layer, value_hint = ValueHint::DirPath)]
    pub(crate) layers: Vec<Placed>,
    /// A file, and where it goes; may be repeated
    #[arg(long = "file", value_name = "FILE:TARGET[:MODE]", value_parser = file)]
    pub(crate) files: Vec<Placed>,
    /// A program that needs nothing beside itself, by default as /bin/ and its name; may be repeated. The first is the
    /// entrypoint if there is no other
    #[arg(long = "program", value_name = "FILE[:TARGET]", value_parser = program, value_hint = ValueHint::FilePath)]
    pub(crate) programs: Vec<Placed>,
    /// A variable; may be repeated
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = values::pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Who it runs as: USER or USER:GROUP, names or numbers
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Where it starts
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// What comes before the command; repeated for each word
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) entrypoint: Vec<String>,
    /// A label; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = values::pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// How its layers are compressed
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) compression: CompressionChoice,
    /// Push it to its registry; only what that lacks is sent
    #[arg(long)]
    pub(crate) push: bool,
    /// Load it into a container engine
    #[arg(long)]
    pub(crate) load: bool,
    /// Write it to oci:DIR or docker-archive:FILE; may be repeated
    #[arg(long, value_name = "KIND:PATH", value_parser = target)]
    pub(crate) out: Vec<Target>,
    /// Where the engine for --load listens; by default where engines usually do
    #[arg(long, env = "DOCKER_HOST", value_name = "ADDRESS")]
    pub(crate) engine: Option<EngineAddress>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    #[command(flatten)]
    pub(crate) store: ImageStoreArgs,
    /// What it runs, after the entrypoint
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `executr image pull`
#[derive(Debug, Args)]
#[command(
    about = "Fetch images, and unpack them for jobs",
    long_about = "Fetches images and unpacks them, once for all jobs of this user. What is here already isn't fetched again; \
        whether a tag has moved is asked each time. Prints each image's name with its digest.",
    after_help = "Examples:
  executr image pull alpine:3.20
  executr image pull --mirror docker.io=https://mirror.example/hub alpine:3.20
  executr image pull --ca-cert ca.pem registry.example/team/app@sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
)]
pub(crate) struct ImagePullArgs {
    /// Which images
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<Reference>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    #[command(flatten)]
    pub(crate) store: ImageStoreArgs,
}

/// `executr image push`
#[derive(Debug, Args)]
#[command(
    about = "Push an image that is here to a registry",
    long_about = "Pushes an image that is here, built or pulled, to the registry of its name, or of another name. Only what \
        the registry lacks is sent. Prints the name with the digest.",
    after_help = "Examples:
  executr image push registry.example/team/app
  executr image push alpine:3.20 registry.example/mirror/alpine:3.20"
)]
pub(crate) struct ImagePushArgs {
    /// Which image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Reference,
    /// Where to; by default what the image is called
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<Reference>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    #[command(flatten)]
    pub(crate) store: ImageStoreArgs,
}

/// `executr image list`
#[derive(Debug, Args)]
#[command(
    about = "List the images that are here",
    after_help = "Examples:
  executr image list
  executr image list --output json"
)]
pub(crate) struct ImageListArgs {
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) store: ImageStoreArgs,
}

/// `executr image rm`
#[derive(Debug, Args)]
#[command(
    about = "Remove images that are here",
    long_about = "Removes images that are here: their names, and whatever no other image needs and no job uses now. What a job \
        uses goes later.",
    after_help = "Examples:
  executr image rm alpine:3.20"
)]
pub(crate) struct ImageRmArgs {
    /// Which images
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<Reference>,
    #[command(flatten)]
    pub(crate) store: ImageStoreArgs,
}

/// Where images are kept.
#[derive(Debug, Args)]
pub(crate) struct ImageStoreArgs {
    /// Where data is kept. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// How registries are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// A place that stands in for a registry (* for all), asked before it; may be repeated, and is tried in this order
    #[arg(long = "mirror", env = "EXECUTR_MIRRORS", value_name = "REGISTRY=URL", value_delimiter = ',')]
    pub(crate) mirrors: Vec<Mirror>,
    /// A file (PEM) of authorities to trust beside the system's; may be repeated
    #[arg(long = "ca-cert", env = "EXECUTR_REGISTRY_CA_CERT", value_name = "FILE", value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub(crate) authorities: Vec<PathBuf>,
    /// A registry that is spoken to without TLS; those on the loopback are anyway. May be repeated
    #[arg(long, env = "EXECUTR_PLAIN_HTTP", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub(crate) plain_http: Vec<String>,
    /// A file of logins, asked before those `podman login` and `docker login` write; may be repeated
    #[arg(long = "auth-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) auth_files: Vec<PathBuf>,
    /// Variables that hold the user's name and password for a registry; may be repeated
    #[arg(long = "login-from", value_name = "REGISTRY=USER_VARIABLE:PASSWORD_VARIABLE", value_parser = login)]
    pub(crate) logins: Vec<LoginVariables>,
}

/// Variables that hold a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginVariables {
    pub(crate) registry: String,
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Something of this machine, and its place in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) from: PathBuf,
    pub(crate) to: String,
    pub(crate) mode: Option<u32>,
}

/// Where an image is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A directory in the OCI layout.
    Layout(PathBuf),
    /// A file as `docker save` writes it.
    DockerArchive(PathBuf),
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionChoice {
    /// Not at all: quickest to build, to load and to start
    None,
    /// As every engine understands it
    Gzip,
    /// Smaller and quicker than gzip; Docker understands it from 23.0 on
    Zstd,
}

impl From<CompressionChoice> for Compression {
    fn from(choice: CompressionChoice) -> Self {
        match choice {
            CompressionChoice::None => Self::None,
            CompressionChoice::Gzip => Self::Gzip,
            CompressionChoice::Zstd => Self::Zstd,
        }
    }
}

/// What stands before and after the last `:/`: a path may hold colons, a target begins with a slash.
fn split(text: &str) -> Option<(&str, &str)> {
    text.rfind(":/").map(|at| (&text[..at], &text[at + 1..])).filter(|(from, _)| !from.is_empty())
}

fn layer(text: &str) -> Result<Placed, String> {
    let (from, to) = split(text).unwrap_or((text, "/"));
    Ok(Placed { from: values::path(from)?, to: to.to_owned(), mode: None })
}

fn file(text: &str) -> Result<Placed, String> {
    let (from, to) = split(text).ok_or("write it as FILE:/TARGET or FILE:/TARGET:MODE")?;
    let (to, mode) = match to.rsplit_once(':') {
        Some((to, mode)) => {
            let octal = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
            (to, Some(octal.ok_or("the mode is octal, as 755")?))
        }
        None => (to, None),
    };
    Ok(Placed { from: values::path(from)?, to: to.to_owned(), mode })
}

fn program(text: &str) -> Result<Placed, String> {
    let (from, to) = match split(text) {
        Some((from, to)) => (from, to.to_owned()),
        None => {
            let name = std::path::Path::new(text).file_name().and_then(|name| name.to_str());
            (text, format!("/bin/{}", name.ok_or("name a file")?))
        }
    };
    Ok(Placed { from: values::path(from)?, to, mode: None })
}

fn target(text: &str) -> Result<Target, String> {
    match text.split_once(':') {
        Some(("oci", path)) => Ok(Target::Layout(values::path(path)?)),
        Some(("docker-archive", path)) => Ok(Target::DockerArchive(values::path(path)?)),
        _ => Err("write it as oci:DIR or docker-archive:FILE; --push and --load bring it elsewhere".to_owned()),
    }
}

fn login(text: &str) -> Result<LoginVariables, String> {
    let parts = text.split_once('=').and_then(|(registry, names)| Some((registry, names.split_once(':')?)));
    match parts {
        Some((registry, (username, password))) if ![registry, username, password].contains(&"") => Ok(LoginVariables {
            registry: registry.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        }),
        _ => {
            Err("write it as REGISTRY=USER_VARIABLE:PASSWORD_VARIABLE, names of variables and not their values"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(from: &str, to: &str, mode: Option<u32>) -> Result<Placed, String> {
        Ok(Placed { from: from.into(), to: to.to_owned(), mode })
    }

    #[test]
    fn what_goes_where_is_said_in_one_word() {
        assert_eq!(layer("app/"), placed("app/", "/", None));
        assert_eq!(layer("app/:/opt/app"), placed("app/", "/opt/app", None));
        assert_eq!(layer("a:b"), placed("a:b", "/", None));
        assert_eq!(file("a:b:/c:644"), placed("a:b", "/c", Some(0o644)));
        assert_eq!(program("target/release/app"), placed("target/release/app", "/bin/app", None));
        assert_eq!(program("app:/app"), placed("app", "/app", None));
        for wrong in ["a", "a:b", ":/a", "a:/b:9", "a:/b:77777"] {
            assert!(file(wrong).is_err(), "{wrong}");
        }
        assert_eq!(target("oci:a:b"), Ok(Target::Layout("a:b".into())));
        assert!(target("push").is_err() && target("oci:").is_err());
        assert_eq!(login("r:5000=U:P").map(|login| login.registry), Ok("r:5000".to_owned()));
        assert!(login("r=U").is_err());
    }
}
