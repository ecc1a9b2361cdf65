//! What the pages say is so: links lead somewhere, every command exists with its flags, and the configuration page lists
//! what the program takes, no more and no less.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use executr_tests::background::{Background, Home};
use executr_tests::program::root;
use executr_tests::{markdown, shell, usage};

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in markdown::links(&fs::read_to_string(&page).unwrap()) {
            let target = link.split('#').next().unwrap();
            let elsewhere = target.is_empty() || target.contains("://");
            if !elsewhere && !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", relative(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_command_in_the_pages_is_one_the_program_takes() {
    let mut refused = Vec::new();
    let mut asked = 0;
    for page in pages() {
        for block in markdown::blocks(&fs::read_to_string(&page).unwrap()) {
            if block.info.first().is_none_or(|language| language != "sh") {
                continue;
            }
            // The way to run it without installing it.
            let script = block.text.replace("cargo run --release --", "executr");
            for command in shell::executr_commands(&script) {
                asked += 1;
                if let Err(answer) = usage::is_known(&command) {
                    let line = command.join(" ");
                    refused.push(format!("{}:{}: executr {line}\n{answer}", relative(&page), block.line));
                }
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(asked > 20, "the pages show how to use the program");
}

#[test]
fn the_automatic_check_is_the_readmes_test_command() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let build_and_test = readme.split("## Build and test").nth(1).unwrap();
    let command = &markdown::blocks(build_and_test)[0].text;
    let check = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(check.ends_with(command), "{command}");
}

#[test]
fn metrics_named_in_the_pages_are_there() {
    let home = Home::new();
    let (_server, url) = Background::serve(&home, &["server"], &[]);
    let metrics = home.command("curl").args(["--silent", &format!("{url}/api/v1/metrics")]).output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let named: Vec<_> = in_code(&page).into_iter().filter(|word| word.starts_with("executr_")).collect();
    assert!(named.len() > 8, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} is not in:\n{metrics}");
    }
}

/// The commands whose flags the configuration page lists, one by one.
const CONFIGURED: [&str; 2] = ["server", "executor"];

/// The commands that share the page's section about commands for a server.
const FOR_A_SERVER: [&str; 8] = ["submit", "list", "status", "logs", "cancel", "wait", "stats", "executors"];

#[test]
fn the_configuration_page_lists_every_flag_of_server_and_executor() {
    let page = configuration();
    for command in CONFIGURED {
        let described: BTreeSet<_> =
            [&page["every command"], &page[command]].into_iter().flat_map(|flags| flags.keys().cloned()).collect();
        let present: BTreeSet<_> = flags_in_help(&usage::help(command)).into_keys().collect();
        assert_eq!(described, present, "left: docs/configuration.md, right: executr {command} --help");
    }
}

#[test]
fn the_configuration_page_names_the_variables_the_program_reads() {
    let page = configuration();
    for command in CONFIGURED {
        let help = flags_in_help(&usage::help(command));
        for (flag, variable) in page["every command"].iter().chain(&page[command]) {
            assert_eq!(variable.as_ref(), help[flag].as_ref(), "executr {command} {flag}");
        }
    }
}

#[test]
fn up_takes_what_the_page_lists_for_server_and_executor() {
    let page = configuration();
    let described: Flags =
        ["every command", "server", "executor"].into_iter().flat_map(|section| page[section].clone()).collect();
    let wrong: Vec<_> =
        flags_in_help(&usage::help("up")).into_iter().filter(|(flag, env)| described.get(flag) != Some(env)).collect();
    assert!(wrong.is_empty(), "not in docs/configuration.md as executr up has it: {wrong:?}");
}

#[test]
fn commands_for_a_server_say_alike_where_it_is() {
    let shared = &configuration()["commands for a server"];
    assert!(!shared.is_empty());
    for command in FOR_A_SERVER {
        let help = flags_in_help(&usage::help(command));
        for (flag, variable) in shared {
            assert_eq!(help.get(flag), Some(variable), "executr {command} {flag}");
        }
    }
}

#[test]
fn every_command_shows_examples_and_the_program_takes_them() {
    let commands = subcommands(&usage::help(""));
    assert!(commands.len() > 10, "{commands:?}");
    let mut wrong = Vec::new();
    for command in commands {
        let help = usage::help(&command);
        let Some((_, examples)) = help.split_once("Examples:") else {
            wrong.push(format!("executr {command} --help shows no examples"));
            continue;
        };
        for example in shell::executr_commands(examples) {
            if let Err(answer) = usage::is_known(&example) {
                wrong.push(format!("executr {command} --help shows: executr {}\n{answer}", example.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names under `Commands:` in clap's help.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

type Flags = BTreeMap<String, Option<String>>;

/// By section, the flags and their variables.
fn configuration() -> BTreeMap<String, Flags> {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut sections = BTreeMap::new();
    for section in page.split("\n## ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap();
        let name = title.trim_matches('`').trim_start_matches("executr ").to_lowercase();
        let mut flags = Flags::new();
        for row in text.lines().filter(|line| line.starts_with("| `--")) {
            let cells: Vec<_> = row.split('|').collect();
            let names = in_code(cells[1]);
            let mut variables = in_code(cells[2]).into_iter();
            flags.extend(names.into_iter().map(|name| (name, variables.next())));
        }
        sections.insert(name, flags);
    }
    sections
}

/// The long flags clap's help shows, with the variable each is read from.
fn flags_in_help(help: &str) -> Flags {
    let mut flags = Flags::new();
    let mut current = None;
    for line in help.lines().take_while(|line| *line != "Examples:") {
        let text = line.trim_start();
        // Prose begins at the margin; what is indented more describes a flag, or lists its values, each behind a dash.
        if text.starts_with('-') && (2..=6).contains(&(line.len() - text.len())) {
            let flag = text.split([' ', ',', '=', '[']).find(|word| word.starts_with("--"));
            current = flag.map(|flag| flag.trim_end_matches("...").to_owned());
            if let Some(flag) = &current
                && flag != "--help"
                && flag != "--version"
            {
                flags.insert(flag.clone(), None);
            }
        }
        if let (Some((_, rest)), Some(flag)) = (text.split_once("[env: "), &current) {
            let variable = rest.split(['=', ']']).next().unwrap();
            flags.insert(flag.clone(), Some(variable.to_owned()));
        }
    }
    flags
}

fn in_code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders: Vec<_> = ["docs", "deploy", "examples", "bench"].map(|name| root().join(name)).into();
    for entry in fs::read_dir(root()).unwrap() {
        pages.push(entry.unwrap().path());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { pages.push(path) }
        }
    }
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

fn relative(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn flags_are_found_in_help() {
    let help = "By --host and\n--port.\n\nOptions:\n  -f, --follow\n          Stay\n          --port.\n          - json: so [env: EXECUTR_F=]\n      --name <NAME>  Its name [env: N=x] [default: y]\n\
        \x20     --plain\n  -h, --help\n\nExamples:\n  x\n  --y\n";
    let flags = flags_in_help(help);
    assert_eq!(flags["--follow"].as_deref(), Some("EXECUTR_F"));
    assert_eq!(flags["--name"].as_deref(), Some("N"));
    assert_eq!(flags["--plain"], None);
    assert_eq!(flags.len(), 3, "{flags:?}");
    assert!(!flags.contains_key("--help"));
}
