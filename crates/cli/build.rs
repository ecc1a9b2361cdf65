//! Packs the agent for containers and other places into release builds, so that the program people install is all they need.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(executr_agent)");
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in ["Cargo.lock", "scripts/build-agent", "crates/agent", "crates/agent-protocol"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let target = env::var("TARGET").expect("cargo sets it");
    let script = root.join("scripts/build-agent");
    // A target directory of its own: cargo holds the lock of the other one.
    let built = Command::new(&script).arg(format!("{out}/agent")).env("TARGET", &target).status();
    let built = built.unwrap_or_else(|error| panic!("{} can't be started: {error}", script.display()));
    assert!(built.success(), "{} failed; see above", script.display());
    let agent = format!("{out}/agent/{target}/agent/executr-agent");
    let agent = std::fs::read(&agent).unwrap_or_else(|error| panic!("{agent}: {error}"));
    let packed = zstd::encode_all(&agent[..], 19).expect("bytes in memory can be packed");
    std::fs::write(format!("{out}/agent.zst"), packed).expect("the output directory is writable");
    println!("cargo:rustc-cfg=executr_agent");
}
