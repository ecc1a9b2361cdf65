//! `executr image`: images without a container engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use executr_tests::background::{Background, Home};
use executr_tests::component;
use executr_tests::registry::{PASSWORD, Registry, Setup, USER};
use serde_json::Value;

use crate::system::{eventually, succeed, text};

/// A home with a directory of an application in it.
fn home() -> Home {
    let home = Home::new();
    fs::create_dir_all(home.path().join("app/bin")).unwrap();
    fs::write(home.path().join("app/bin/app"), "#!/bin/sh\n").unwrap();
    home
}

#[test]
fn an_image_is_built_pushed_listed_removed_and_pulled() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let home = home();
    let name = format!("{}/team/app:1", registry.host());
    let build = ["image", "build", "-t", &name, "--layer", "app/:/opt", "--env", "A=b", "--user", "1000"];
    let output = home.executr(&build).args(["--push", "--out", "oci:layout", "--", "sh"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let whole = text(&output.stdout).trim().to_owned();
    assert!(whole.starts_with(&format!("{name}@sha256:")), "{whole}");
    let told = text(&output.stderr);
    assert!(told.contains("1 layers") && told.contains("sent 2 blobs"), "{told}");
    assert!(home.path().join("layout/index.json").is_file());
    // Again, in another process: the same digest, and nothing travels.
    let output = home.executr(&build).args(["--push", "--", "sh"]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), whole);
    assert!(text(&output.stderr).contains("sent 0 blobs"), "{}", text(&output.stderr));

    let listed = |home: &Home| -> Vec<Value> {
        serde_json::from_str(&succeed(&mut home.executr(&["image", "list", "--output", "json"]))).unwrap()
    };
    let list = listed(&home);
    assert_eq!((list.len(), &list[0]["name"], &list[0]["built"]), (1, &Value::from(name.as_str()), &Value::from(true)));
    assert!(succeed(&mut home.executr(&["image", "list"])).contains("built here"));
    succeed(&mut home.executr(&["image", "rm", &name]));
    assert!(listed(&home).is_empty());
    let output = home.executr(&["image", "rm", &name]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("executr image list"), "{}", text(&output.stderr));

    let pulled = succeed(&mut home.executr(&["image", "pull", &name]));
    assert_eq!(pulled.trim(), whole);
    assert_eq!(listed(&home)[0]["whole"], true);
    let layers = home.path().join(".local/state/executr/images/layers");
    let layer = fs::read_dir(layers).unwrap().next().unwrap().unwrap().path();
    assert!(layer.join("tree/opt/bin/app").is_file());
}

#[test]
fn wrong_words_say_what_to_write() {
    let home = home();
    for (arguments, told) in [
        (&["-t", "Upper", "--layer", "app"][..], "alpine:3.20"),
        (&["-t", "a"], "--layer DIR"),
        (&["-t", "a", "--layer", "nowhere"], "nowhere"),
        (&["-t", "a", "--layer", "app:/../x"], "leads out"),
        (&["-t", "a", "--file", "app/bin/app"], "FILE:/TARGET"),
        (&["-t", "a", "--program", "app/bin/app"], "no program of 64-bit Linux"),
        (&["-t", "a", "--layer", "app", "--out", "tar:x"], "oci:DIR"),
        (&["-t", "a", "--layer", "app", "--mirror", "x"], "REGISTRY=http"),
    ] {
        let output = home.executr(&["image", "build"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(told), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn logins_come_from_variables_files_and_helpers() {
    let Some(registry) = Registry::start(&Setup { knows_users: true, ..Setup::default() }) else { return };
    let home = home();
    let host = registry.host();
    let name = format!("{host}/team/app:1");
    let build = ["image", "build", "-t", &name, "--layer", "app/", "--push"];
    let output = home.executr(&build).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("docker login {host}")), "{}", text(&output.stderr));

    let mut by_variables = home.executr(&build);
    by_variables.args(["--login-from", &format!("{host}=NAME:WORD")]).env("NAME", USER);
    let output = by_variables.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("WORD"), "{}", text(&output.stderr));
    succeed(by_variables.env("WORD", PASSWORD));

    // A helper as `docker login` names it, found by its name.
    let bin = home.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-tests");
    let script = format!(
        "#!/bin/sh\nread registry\n[ \"$1 $registry\" = 'get {host}' ] || {{ echo credentials not found in native keychain; exit 1; }}\n\
         echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(home.path().join(".docker")).unwrap();
    fs::write(home.path().join(".docker/config.json"), r#"{"credsStore": "tests"}"#).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    succeed(home.executr(&["image", "rm", &name]).env("PATH", &path));
    succeed(home.executr(&["image", "pull", &name]).env("PATH", &path));
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_half() {
    let Some(registry) = Registry::start(&Setup::default()) else { return };
    let home = home();
    let mut big = vec![0_u8; 48 << 20];
    for (number, block) in big.chunks_mut(512).enumerate() {
        block[..8].copy_from_slice(&number.to_le_bytes());
    }
    fs::write(home.path().join("app/big"), &big).unwrap();
    let name = format!("{}/big:1", registry.host());
    succeed(&mut home.executr(&["image", "build", "-t", &name, "--layer", "app/", "--push"]));
    succeed(&mut home.executr(&["image", "rm", &name]));
    let store = home.path().join(".local/state/executr/images");
    let unpacking = || {
        let rooms = fs::read_dir(store.join("incoming")).into_iter().flatten().flatten();
        rooms.into_iter().any(|room| room.path().join("tree/big").exists())
    };
    for number in 0..3 {
        let mut pull = Background::start(&home, &format!("pull{number}"), &mut home.executr(&["image", "pull", &name]));
        eventually("it unpacks, or has ended", || (unpacking() || pull.has_ended()).then_some(()));
        pull.kill();
        let whole = fs::read_dir(store.join("layers")).unwrap().flatten();
        for layer in whole {
            assert_eq!(fs::metadata(layer.path().join("tree/big")).unwrap().len(), big.len() as u64);
        }
        drop(home.executr(&["image", "rm", &name]).output());
    }
    succeed(&mut home.executr(&["image", "pull", &name]));
    let layer = fs::read_dir(store.join("layers")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read(layer.join("tree/big")).unwrap() == big);
    let left: Vec<_> = fs::read_dir(store.join("incoming")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_static_program_is_an_image() {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::metadata(path).is_ok()) else {
        component::missing("busybox", "there is no busybox");
        return;
    };
    let home = home();
    let build = ["image", "build", "-t", "tool", "--program", busybox, "--out", "docker-archive:tool.tar"];
    let first = succeed(&mut home.executr(&build));
    let archive = fs::read(home.path().join("tool.tar")).unwrap();
    assert_eq!(succeed(&mut home.executr(&build)), first);
    assert!(fs::read(home.path().join("tool.tar")).unwrap() == archive, "the same bytes");
}
