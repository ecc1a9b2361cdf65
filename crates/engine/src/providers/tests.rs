//! What sources of variables say.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use executr_spec::workflow::SopsFormat;
use uuid::Uuid;

use super::*;
use crate::host::DEFAULT_PATH;

fn host() -> HostContext {
    let variables =
        [("PATH".into(), DEFAULT_PATH.into()), ("MINE".into(), "yes".into()), ("EXECUTR_TOKEN".into(), "no".into())];
    HostContext { variables: variables.into(), ..HostContext::default() }
}

fn policy() -> Policy {
    Policy { providers: true, ..Policy::default() }
}

fn file(path: &str, required: bool) -> Provider {
    Provider::File { path: path.to_owned(), required }
}

async fn said(root: &Path, provider: &Provider) -> Result<Provided, String> {
    let host = host();
    let asking = Asking { host: &host, policy: &policy(), root: Root::Copy(root) };
    ask(provider, asking).await.map_err(|error| error.to_string())
}

fn pairs(provided: &Provided) -> Vec<(&str, &str)> {
    provided.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn script(root: &Path, name: &str, text: &str) {
    std::fs::write(root.join(name), text).unwrap();
    std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn files_are_read_within_the_repository_only() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join(".env"), "A=1\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", temp.path().join("link")).unwrap();
    let provided = said(temp.path(), &file(".env", true)).await.unwrap();
    assert_eq!((pairs(&provided), provided.secret), (vec![("A", "1")], true));
    assert_eq!(said(temp.path(), &file("absent", false)).await, Ok(Provided::default()));
    for (path, told) in [("absent", "isn't there"), ("../x", "out of"), ("/etc/passwd", "out of"), ("link", "out of")] {
        let error = said(temp.path(), &file(path, true)).await.unwrap_err();
        assert!(error.contains(told) && error.contains(&format!("file `{path}`")), "{error}");
    }
    let asking = Asking { host: &host(), policy: &policy(), root: Root::Nothing };
    assert!(ask(&file(".env", false), asking).await.unwrap_err().to_string().contains("executr submit"));
}

#[tokio::test]
async fn a_program_prints_exports_and_is_never_evaluated() {
    let temp = tempfile::tempdir().unwrap();
    script(temp.path(), "vars", "#!/bin/sh\necho \"export A='$MINE $EXECUTR_TOKEN $1'\"; echo 'export B=\"$(id)\"'");
    let provided = said(temp.path(), &Provider::Command(vec!["./vars".into(), "x".into()])).await.unwrap();
    assert_eq!((pairs(&provided), provided.secret), (vec![("A", "yes  x"), ("B", "$(id)")], true));
    script(temp.path(), "fails", "#!/bin/sh\necho no key >&2; exit 3");
    let error = said(temp.path(), &Provider::Command(vec!["./fails".into()])).await.unwrap_err();
    assert!(error.contains("./fails") && error.contains("3") && error.contains("no key"), "{error}");
    let error = said(temp.path(), &Provider::Command(vec!["no-such-program".into()])).await.unwrap_err();
    assert!(error.contains("cannot start"), "{error}");
    let asking = Asking { host: &host(), policy: &Policy::default(), root: Root::Copy(temp.path()) };
    let error = ask(&Provider::Command(vec!["true".into()]), asking).await.unwrap_err().to_string();
    assert!(error.contains("--allow providers"), "{error}");
}

/// The real `sops` needs keys; what it is asked and what becomes of its answer is seen with a stand-in for it.
#[tokio::test]
async fn sops_is_asked_for_json_and_nested_keys_are_joined() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("secrets.yaml"), "encrypted").unwrap();
    script(
        temp.path(),
        "sops",
        "#!/bin/sh\n[ \"$*\" = \"--decrypt --input-type yaml --output-type json $PWD/secrets.yaml\" ] || exit 9\n\
         echo '{\"db\": {\"password\": \"hunter2\", \"port\": 5432}}'",
    );
    let mut host = host();
    let root = temp.path().canonicalize().unwrap();
    let path = format!("{}:{DEFAULT_PATH}", root.display());
    host.variables.insert("PATH".into(), path.into());
    let asking = Asking { host: &host, policy: &policy(), root: Root::Copy(&root) };
    let sops = |file: &str, required| Provider::Sops { file: file.to_owned(), format: SopsFormat::Yaml, required };
    let provided = ask(&sops("secrets.yaml", true), asking).await.unwrap();
    assert_eq!(pairs(&provided), [("db_password", "hunter2"), ("db_port", "5432")]);
    assert!(provided.secret);
    assert!(ask(&sops("absent", true), asking).await.is_err());
    assert_eq!(ask(&sops("absent", false), asking).await, Ok(Provided::default()));
}

#[tokio::test]
async fn a_source_is_asked_once_a_run() {
    let temp = tempfile::tempdir().unwrap();
    script(temp.path(), "count", "#!/bin/sh\necho x >> asked; echo \"export N=$(wc -l < asked)\"");
    let (host, providers) = (host(), Arc::new(Providers::default()));
    let provider = Provider::Command(vec!["./count".into()]);
    let asking = Asking { host: &host, policy: &policy(), root: Root::Copy(temp.path()) };
    let counted = async |run: u128| {
        let answer = providers.ask((Uuid::from_u128(run), None), &provider, async || {
            Ok::<_, std::convert::Infallible>(ask(&provider, asking).await)
        });
        answer.await.unwrap().unwrap().variables["N"].clone()
    };
    assert_eq!(tokio::join!(counted(1), counted(1)), ("1".to_owned(), "1".to_owned()));
    assert_eq!(counted(2).await, "2");
    providers.forget(executr_spec::RunId(Uuid::from_u128(1)));
    assert_eq!(counted(1).await, "3");
}

#[tokio::test]
async fn what_cannot_be_asked_now_is_asked_again() {
    let (providers, provider) = (Providers::default(), file(".env", true));
    let place = (Uuid::from_u128(1), None);
    assert_eq!(providers.ask(place, &provider, async || Err("away")).await, Err("away"));
    let wrong = ProviderError::new(&provider, "wrong");
    let answer = providers.ask(place, &provider, async || Ok::<_, &str>(Err(wrong.clone()))).await;
    assert_eq!(answer, Ok(Err(wrong.clone())));
    let answer = providers.ask(place, &provider, async || Ok::<_, &str>(Ok(Provided::default()))).await;
    assert_eq!(answer, Ok(Err(wrong)), "an answer is one for the whole run");
}
