//! Containers without a daemon, and jobs kept from this machine.

use super::Finding;
use super::facts::{Direct, Machine, NoDirect};

pub(super) fn findings(machine: &Machine, direct: &Direct) -> Vec<Finding> {
    let mut found = vec![match &direct.runtime {
        Ok(program) => {
            Finding::ok("runtime", format!("{} runs containers here: a root was mounted", program.display()))
        }
        Err(NoDirect::NoRuntime) => Finding::lacks(
            "runtime",
            "neither crun nor runc is installed",
            "install one for containers without a daemon and for `isolate` (Debian: `apt-get install crun`)",
        ),
        Err(NoDirect::Failed(problem)) => Finding::lacks(
            "runtime",
            format!("containers can't be run: {problem}"),
            if machine.user == 0 {
                "this takes mount namespaces and overlay: in a container, CAP_SYS_ADMIN; else use Docker or Podman"
            } else {
                "this takes user namespaces: see `user namespaces` above; or run as root"
            },
        ),
    }];
    if machine.user != 0 && direct.runtime.is_ok() {
        found.push(if direct.others {
            Finding::ok("users", "steps may run as any user of an image")
        } else {
            Finding::lacks(
                "users",
                "steps can run as root of an image only",
                "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, and install newuidmap \
                 (Debian: `apt-get install uidmap`)",
            )
        });
    }
    found
}
