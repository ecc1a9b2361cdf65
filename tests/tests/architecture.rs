//! The folder tree is the architecture: no crate uses another which `docs/architecture.md` does not allow it, and no
//! file has a name that says nothing.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use executr_tests::program::root;

/// Packages beside the crates. They may use any crate; of them, only `tests` may be used, and only by tests.
const BESIDE: [&str; 2] = ["bench", "tests"];

/// Names that would take in anything.
const SAYING_NOTHING: [&str; 8] = ["common", "helper", "helpers", "manager", "misc", "shared_utils", "util", "utils"];

type Crates = BTreeMap<String, BTreeSet<String>>;

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let allowed = closure(&table_in_docs());
    let mut wrong = Vec::new();
    for arrow in arrows() {
        if BESIDE.contains(&arrow.from.as_str()) {
            continue;
        }
        let back = allowed.get(&arrow.to).is_some_and(|row| row.contains(&arrow.from));
        let by_tests = arrow.kind == "dev" && !back;
        let by_table = allowed.get(&arrow.from).is_some_and(|row| row.contains(&arrow.to));
        if !by_tests && !by_table {
            wrong.push(format!("{} uses {} ({})", arrow.from, arrow.to, arrow.kind));
        }
    }
    assert!(
        wrong.is_empty(),
        "not in the table of docs/architecture.md: {wrong:#?}\n\
         Move the code to where it belongs, or put a test that needs both into tests/."
    );
}

#[test]
fn the_architecture_names_exactly_the_crates_there_are() {
    let described: BTreeSet<_> = table_in_docs().into_keys().collect();
    let present: BTreeSet<_> =
        packages().into_iter().map(|(name, _)| name).filter(|name| !BESIDE.contains(&name.as_str())).collect();
    assert_eq!(described, present);
}

#[test]
fn the_picture_shows_only_allowed_arrows() {
    let allowed = closure(&table_in_docs());
    let page = architecture_page();
    let picture = page
        .split("```mermaid\nflowchart BT\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("docs/architecture.md has the picture of the crates");
    let mut shown = BTreeSet::new();
    for line in picture.lines() {
        let (from, to) = line.trim().split_once(" --> ").expect("every line is an arrow");
        assert!(
            allowed.get(from).is_some_and(|row| row.contains(to)),
            "the picture shows {from} --> {to}, the table doesn't"
        );
        shown.extend([from.to_owned(), to.to_owned()]);
    }
    let all: BTreeSet<_> = allowed.into_keys().collect();
    assert_eq!(shown, all, "every crate stands in the picture");
}

#[test]
fn a_table_gives_what_its_rows_reach() {
    let table = parse("| a | x | b |\n| b | x | c |\n| c | x | |\n");
    let reached = closure(&table);
    assert_eq!(reached["a"], BTreeSet::from(["b".into(), "c".into()]));
    assert!(!reached["c"].contains("a"), "arrows have one direction");
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let named: Vec<_> = sources()
        .into_iter()
        .filter(|path| {
            let words = path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
            words.into_iter().any(|word| SAYING_NOTHING.contains(&word))
        })
        .collect();
    assert!(named.is_empty(), "say what lives there: {named:#?}");
}

#[test]
fn every_module_opens_with_what_lives_there() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(root().join(path)).unwrap();
            !text.trim_start().starts_with("//!")
        })
        .collect();
    assert!(silent.is_empty(), "begin with a //! comment: {silent:#?}");
}

struct Arrow {
    from: String,
    to: String,
    /// `normal`, `build` or `dev`.
    kind: String,
}

fn arrows() -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, package) in packages() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            if let Some(to) = name.strip_prefix("executr-") {
                arrows.push(Arrow {
                    from: from.clone(),
                    to: to.to_owned(),
                    kind: dependency["kind"].as_str().unwrap_or("normal").to_owned(),
                });
            }
        }
    }
    assert!(!arrows.is_empty(), "the crates of a workspace use each other");
    arrows
}

/// The workspace's packages by their name without `executr-`.
fn packages() -> Vec<(String, serde_json::Value)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap();
            let short = name.strip_prefix("executr-").expect("packages are named executr-…");
            (short.to_owned(), package.clone())
        })
        .collect()
}

fn table_in_docs() -> Crates {
    let page = architecture_page();
    let table = page
        .split("| crate | what lives there | may use |\n| --- | --- | --- |\n")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .expect("docs/architecture.md has the table of crates");
    parse(table)
}

fn parse(table: &str) -> Crates {
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, uses] = cells[..] else {
            panic!("a row has three cells: {line}");
        };
        let uses = uses.split(',').map(str::trim).filter(|name| !name.is_empty());
        (name.to_owned(), uses.map(str::to_owned).collect())
    };
    table.lines().map(row).collect()
}

/// Every crate with all that its row reaches.
fn closure(table: &Crates) -> Crates {
    let mut reached = table.clone();
    loop {
        let mut grown = reached.clone();
        for row in grown.values_mut() {
            let further: Vec<_> = row.iter().flat_map(|name| reached[name].clone()).collect();
            row.extend(further);
        }
        if grown == reached {
            return reached;
        }
        reached = grown;
    }
}

fn architecture_page() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

/// Every Rust source file, relative to the root.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("crates"), root().join("tests"), root().join("bench")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 10, "the sources are here: {found:?}");
    found
}
