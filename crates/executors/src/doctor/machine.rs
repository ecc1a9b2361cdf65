//! What all executors use.

use super::Finding;
use super::facts::{Directory, Machine};

/// With less than this left, jobs soon fail for want of space.
const LITTLE_SPACE: u64 = 1 << 30;

/// With fewer a worker of many slots, or a server of many clients, comes to its end.
const FEW_FILES: u64 = 4_096;

pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    let mut found = directory(&machine.data);
    found.push(open_files(machine.open_files));
    found.push(match &machine.git {
        Some(version) => Finding::ok("git", version),
        None => Finding::lacks(
            "git",
            "not found: runs can't take the repository they start in",
            "install it (Debian: apt-get install git), or run workflows outside repositories",
        ),
    });
    found.push(match &machine.sops {
        Some(version) => Finding::ok("sops", version),
        None => Finding::lacks(
            "sops",
            "not found: `env_from: [{sops: …}]` fails",
            "put the program into PATH, if your workflows use it",
        ),
    });
    found
}

fn directory(data: &Directory) -> Vec<Finding> {
    let path = data.path.display();
    if let Err(problem) = &data.writable {
        let remedy = format!("make {path} writable for this user, or name another directory with --data-dir");
        return vec![Finding::broken("data directory", format!("{path}: {problem}"), remedy)];
    }
    let mut found = Vec::new();
    found.push(match data.free {
        Some(free) if free < LITTLE_SPACE => Finding::lacks(
            "data directory",
            format!("{path}: only {} left", gibibytes(free)),
            "free some space (`executr clean` shows what is Executr's), or name another directory with --data-dir",
        ),
        Some(free) => Finding::ok("data directory", format!("{path}: {} left", gibibytes(free))),
        None => Finding::ok("data directory", path.to_string()),
    });
    if !data.runs_programs {
        found.push(Finding::broken(
            "programs",
            format!("{path} is mounted noexec: fetched and uploaded programs can't be started"),
            "name a directory of another file system with --data-dir, or --cache-dir and --work-dir",
        ));
    }
    found.push(if data.reflink {
        Finding::ok("reflink", "files share their content until one is written to")
    } else {
        Finding::lacks(
            "reflink",
            "the file system copies files byte by byte; all works, large repositories take longer",
            "put the data directory on btrfs, or on XFS made with reflink=1",
        )
    });
    found
}

fn open_files((now, most): (Option<u64>, Option<u64>)) -> Finding {
    let number = |bound: Option<u64>| bound.map_or_else(|| "any number".to_owned(), |bound| bound.to_string());
    let says = format!("{} for jobs, {} for servers and executors", number(now), number(most));
    if most.is_some_and(|most| most < FEW_FILES) {
        return Finding::lacks(
            "open files",
            says,
            "raise the hard limit (`ulimit -Hn`; systemd: LimitNOFILE=65536) for many slots or clients",
        );
    }
    Finding::ok("open files", says)
}

fn gibibytes(bytes: u64) -> String {
    // Tenths, in whole numbers.
    let tenths = bytes / ((1 << 30) / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}
