//! `executr graph`: pictures of a workflow, to the letter.

use executr_tests::background::Home;

use crate::choosing::file;
use crate::system::succeed;

const WORKFLOW: &str = "
jobs:
  build: { steps: [make] }
  test:
    needs: build
    matrix: { on: [x, y] }
    steps: [make check]
  publish:
    needs: [test, build]
    if: ${{ success() && '<' != '>' }}
    steps: [make publish]
";

fn graph(flags: &[&str]) -> String {
    let home = Home::new();
    let path = file(&home, WORKFLOW);
    succeed(home.executr(&["graph", path.to_str().unwrap()]).args(flags))
}

#[test]
fn as_text_it_has_a_layer_for_each_depth() {
    let text = "\
workflow: 4 jobs
  1  build
  2  test-on-x  ← build
     test-on-y  ← build
  3  publish    ← build, test (2)  if ${{ success() && '<' != '>' }}
";
    assert_eq!(graph(&[]), text);
    assert_eq!(graph(&["--format", "text"]), text);
}

#[test]
fn as_mermaid_and_as_dot_it_has_nodes_and_edges() {
    let mermaid = "\
flowchart LR
    j0[\"build\"]
    j1[\"test-on-x\"]
    j2[\"test-on-y\"]
    j3[\"publish<br>if #36;#123;#123; success() #38;#38; '#60;' #33;= '#62;' #125;#125;\"]
    j0 --> j1
    j0 --> j2
    j0 --> j3
    j1 --> j3
    j2 --> j3
";
    assert_eq!(graph(&["--format", "mermaid"]), mermaid);
    let dot = r#"digraph "workflow" {
    rankdir=LR;
    node [shape=box];
    j0 [label="build"];
    j1 [label="test-on-x"];
    j2 [label="test-on-y"];
    j3 [label="publish\nif ${{ success() && '<' != '>' }}"];
    j0 -> j1;
    j0 -> j2;
    j0 -> j3;
    j1 -> j3;
    j2 -> j3;
}
"#;
    assert_eq!(graph(&["--format", "dot"]), dot);
}
