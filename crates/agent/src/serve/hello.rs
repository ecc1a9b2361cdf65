//! Whom callers speak to.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use executr_agent_protocol::PROTOCOL;
use executr_agent_protocol::v1::{HelloRequest, HelloResponse};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tonic::Status;

use super::keepers::Keepers;

/// What an agent is, found out once.
pub(super) struct Facts {
    keepers: Arc<Keepers>,
    instance_id: String,
    digest: OnceCell<String>,
}

impl Facts {
    pub(super) fn new(keepers: Arc<Keepers>) -> Self {
        Self { keepers, instance_id: random_name(), digest: OnceCell::new() }
    }

    pub(super) async fn hello(&self, request: &HelloRequest) -> Result<HelloResponse, Status> {
        if request.protocol != PROTOCOL {
            return Err(Status::failed_precondition(format!(
                "the agent speaks version {PROTOCOL} of the protocol, not {}; use caller and agent of the same release",
                request.protocol
            )));
        }
        let offers = self.keepers.offers().await.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let refused = |offer: Result<(), String>| offer.err();
        Ok(HelloResponse {
            protocol: PROTOCOL,
            digest: if request.digest { self.digest().await? } else { String::new() },
            pid: std::process::id(),
            instance_id: self.instance_id.clone(),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            offers: Some(executr_agent_protocol::v1::Offers {
                no_memory: refused(offers.memory),
                no_cpu: refused(offers.cpu),
                no_pids: refused(offers.pids),
            }),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        })
    }

    async fn digest(&self) -> Result<String, Status> {
        let found = self.digest.get_or_try_init(|| async {
            let digested = tokio::task::spawn_blocking(digest_of_program).await;
            digested.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        });
        let problem = |error| Status::internal(format!("the agent's program can't be read: {error}; start it anew"));
        found.await.cloned().map_err(problem)
    }
}

fn digest_of_program() -> std::io::Result<String> {
    let mut program = fs::File::open("/proc/self/exe")?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match program.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// 128 bits nobody else has.
fn random_name() -> String {
    let mut bytes = [0_u8; 16];
    // SAFETY: a plain call on memory of ours. 16 bytes are never given in part; before the kernel has collected enough
    // randomness it waits.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
