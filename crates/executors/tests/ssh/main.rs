//! Jobs on other hosts: real servers of OpenSSH, on loopback, and the conformance suite there.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../conformance/mod.rs"]
mod conformance;
mod getting_there;
mod lost;
mod rig;

mod shared {
    async fn rig() -> Option<crate::conformance::rig::Rig> {
        crate::rig::on_a_host(executr_executors::ssh::Mode::Shared).await
    }
    crate::conformance!(rig);
}

mod dedicated {
    async fn rig() -> Option<crate::conformance::rig::Rig> {
        crate::rig::on_a_host(executr_executors::ssh::Mode::Dedicated).await
    }
    crate::conformance!(rig);
}
