//! How plans look.

use executr_spec::workflow::{dry_run, picture};

use super::plan;

const FILE: &str = "
name: ci
timeout: 1h
jobs:
  build:
    steps:
      - name: compile
        run: |
          make
          make install
        retry: 5
        timeout: 5m
      - {argv: [cc, -v], if: failure(), continue_on_error: true}
    outputs: {lib: target/lib}
  lint: {steps: [make lint], continue_on_error: true, job_retry: 2}
  test:
    needs: build
    matrix: {os: [linux, mac], max_parallel: 1}
    steps: [{run: make test, workdir: src}]
    inputs: [lib]
  report:
    needs: [test, lint]
    if: \"${{ always() && run.name == 'ci' }}\"
    executor: {kind: hooks, name: mail, execute: x}
    steps: [report]
    timeout: 30s
";

#[test]
fn a_graph_stands_in_layers() {
    assert_eq!(
        picture::text(&plan(FILE)),
        "ci: 5 jobs
  1  build
     lint
  2  test-os-linux  ← build
     test-os-mac    ← build
  3  report         ← lint, test (2)  if ${{ always() && run.name == 'ci' }}
"
    );
}

#[test]
fn a_graph_is_a_flowchart_and_a_digraph() {
    let plan = plan(FILE);
    assert_eq!(
        picture::mermaid(&plan),
        "flowchart LR
    j0[\"build\"]
    j1[\"lint\"]
    j2[\"test-os-linux\"]
    j3[\"test-os-mac\"]
    j4[\"report<br>if #36;#123;#123; always() #38;#38; run.name == 'ci' #125;#125;\"]
    j0 --> j2
    j0 --> j3
    j1 --> j4
    j2 --> j4
    j3 --> j4
"
    );
    let dot = picture::dot(&plan);
    assert!(dot.starts_with("digraph \"ci\" {\n") && dot.ends_with("    j3 -> j4;\n}\n"), "{dot}");
    assert_eq!(dot.matches("label=").count(), 5);
}

#[test]
fn names_do_not_break_a_picture() {
    let plan = plan("name: \"a \\\"b\\\" \\\\ c\"\njobs: {a: {steps: [x]}}");
    assert!(picture::dot(&plan).starts_with("digraph \"a \\\"b\\\" \\\\ c\" {"), "{}", picture::dot(&plan));
}

#[test]
fn a_dry_run_says_what_would_run() {
    assert_eq!(
        dry_run(&plan(FILE)),
        "ci: 5 jobs, at most 1h; the first failure stops what has not started

build  (on local)
  1. compile: make …  (up to 5 tries, 1s, 2s, 4s … apart; at most 5m)
  2. cc -v  (if failure(); may fail)
  makes lib of target/lib

lint  (on local; up to 3 attempts; may fail)
  1. make lint

test-os-linux  (after build; on local; at most 1 at a time of matrix:test)
  gets lib of build into .
  1. make test  (in src)

test-os-mac  (after build; on local; at most 1 at a time of matrix:test)
  gets lib of build into .
  1. make test  (in src)

report  (after lint, test (2); if ${{ always() && run.name == 'ci' }}; on mail (hooks); at most 30s)
  1. report
"
    );
}
