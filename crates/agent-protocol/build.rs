//! Compiles the protocols without `protoc`, which therefore needs no installing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let agent = ["agent", "files", "trees"].map(|name| format!("executr/agent/v1/{name}.proto"));
    let keeper = "executr/keeper/v1/keeper.proto".to_owned();
    let files = protox::compile(agent.into_iter().chain([keeper]), ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(files, config)?;
    Ok(())
}
