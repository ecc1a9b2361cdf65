//! The formats that programs read, line by line: what stands here is what they may rely on.

use executr_tests::background::Home;
use serde_json::Value;

use crate::choosing::file;
use crate::system::{System, text};

/// One job, so that its lines have one order: each kind of step there is, then a job that never starts.
const WORKFLOW: &str = r#"
fail_fast: false
jobs:
  all:
    env: { GREETING: hello }
    steps:
      - { name: out, run: 'echo "$GREETING"' }
      - { name: err, run: echo bad >&2 }
      - { name: bytes, run: "printf '\\377\\n'" }
      - name: flaky
        retry: { max_attempts: 2, backoff: constant, min_time: 10ms }
        run: test -e again || { touch again; exit 3; }
      - { name: lenient, continue_on_error: true, run: exit 4 }
      - { name: never, if: "${{ false }}", run: echo never }
      - exit 5
  after: { needs: all, steps: [echo never] }
"#;

/// The lines `run` prints with a format, then those of `submit --wait`. Jobs are shown beside each other, so the line of
/// `after` may come before the last of `all`: it is put at the end.
fn both_ways(format: &str) -> [Vec<String>; 2] {
    let home = Home::new();
    let path = file(&home, WORKFLOW);
    let near = home.executr(&["run", "--format", format, path.to_str().unwrap()]).output().unwrap();
    let system = System::up(&[]);
    let path = file(&system.home, WORKFLOW);
    let far = system.output(&["submit", "--wait", "--format", format, path.to_str().unwrap()]);
    [near, far].map(|output| {
        assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
        let (mut lines, after): (Vec<_>, Vec<_>) =
            text(&output.stdout).lines().map(str::to_owned).partition(|line| !line.contains("after"));
        lines.extend(after);
        lines
    })
}

/// Whether this is a moment as `2026-01-31T12:00:00.123456Z`.
fn is_time(word: &str) -> bool {
    let like = "0000-00-00T00:00:00.000000Z";
    let fits = |(have, want): (char, char)| if want == '0' { have.is_ascii_digit() } else { have == want };
    word.len() == like.len() && word.chars().zip(like.chars()).all(fits)
}

fn is_id(word: &str) -> bool {
    word.len() == 36 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// The line with its time, ids and durations replaced by their names.
fn without_what_varies(line: &str) -> String {
    let mut duration = false;
    let words = line.split(' ').map(|word| {
        let bare = word.trim_matches(['[', ']', ':']);
        let was_duration = std::mem::replace(&mut duration, word == "in");
        if is_time(bare) {
            word.replace(bare, "TIME")
        } else if is_id(bare) {
            word.replace(bare, "ID")
        } else if was_duration {
            "DURATION".to_owned()
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn structured_lines_keep_their_shape() {
    for printed in both_ways("structured") {
        let lines: Vec<String> = printed.iter().map(|line| without_what_varies(line)).collect();
        assert_eq!(
            lines,
            [
                "[TIME] [workflow:workflow] run ID: 2 jobs",
                "[TIME] [workflow:workflow] [job:all] started",
                "[TIME] [workflow:workflow] [job:all] [step:out] [attempt:1/1] started",
                "[TIME] [workflow:workflow] [job:all] [step:out] [attempt:1/1] hello",
                "[TIME] [workflow:workflow] [job:all] [step:out] [attempt:1/1] done in DURATION",
                "[TIME] [workflow:workflow] [job:all] [step:err] [attempt:1/1] started",
                "[TIME] [workflow:workflow] [job:all] [step:err] [attempt:1/1] bad",
                "[TIME] [workflow:workflow] [job:all] [step:err] [attempt:1/1] done in DURATION",
                "[TIME] [workflow:workflow] [job:all] [step:bytes] [attempt:1/1] started",
                "[TIME] [workflow:workflow] [job:all] [step:bytes] [attempt:1/1] \u{fffd}",
                "[TIME] [workflow:workflow] [job:all] [step:bytes] [attempt:1/1] done in DURATION",
                "[TIME] [workflow:workflow] [job:all] [step:flaky] [attempt:1/2] started (try 1 of 2)",
                "[TIME] [workflow:workflow] [job:all] [step:flaky] [attempt:1/2] failed with exit code 3 (try 1 of 2); again in DURATION",
                "[TIME] [workflow:workflow] [job:all] [step:flaky] [attempt:2/2] started (try 2 of 2)",
                "[TIME] [workflow:workflow] [job:all] [step:flaky] [attempt:2/2] done in DURATION (try 2 of 2)",
                "[TIME] [workflow:workflow] [job:all] [step:lenient] [attempt:1/1] started",
                "[TIME] [workflow:workflow] [job:all] [step:lenient] [attempt:1/1] failed with exit code 4",
                "[TIME] [workflow:workflow] [job:all] [step:never] [attempt:1/1] skipped",
                "[TIME] [workflow:workflow] [job:all] [step:7] [attempt:1/1] started",
                "[TIME] [workflow:workflow] [job:all] [step:7] [attempt:1/1] failed with exit code 5",
                "[TIME] [workflow:workflow] [job:all] failed: step 7 `exit 5`: exit code 5",
                "[TIME] [workflow:workflow] run failed",
                "[TIME] [workflow:workflow] [job:after] skipped: a job before it failed",
            ]
        );
    }
}

#[test]
fn json_lines_keep_their_shape() {
    for printed in both_ways("json") {
        let lines: Vec<String> = printed
            .iter()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let fields = line.as_object_mut().unwrap();
                assert!(is_time(fields["time"].as_str().unwrap()), "{fields:?}");
                fields["time"] = "TIME".into();
                if let Some(run) = fields.get_mut("run") {
                    assert!(is_id(run.as_str().unwrap()));
                    *run = "ID".into();
                }
                if let Some(duration) = fields.get_mut("duration_ms") {
                    assert!(duration.is_u64());
                    *duration = "MS".into();
                }
                line.to_string()
            })
            .collect();
        assert_eq!(
            lines,
            [
                r#"{"event":"run_started","jobs":2,"run":"ID","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"event":"job_started","job":"all","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":1,"step":"out","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"event":"output","job":"all","max_attempts":1,"step":"out","stream":"stdout","text":"hello","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"duration_ms":"MS","event":"success","exit_code":0,"job":"all","max_attempts":1,"step":"out","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":1,"step":"err","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"event":"output","job":"all","max_attempts":1,"step":"err","stream":"stderr","text":"bad","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"duration_ms":"MS","event":"success","exit_code":0,"job":"all","max_attempts":1,"step":"err","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":1,"step":"bytes","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"base64":"/w==","event":"output","job":"all","max_attempts":1,"step":"bytes","stream":"stdout","text":"�","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"duration_ms":"MS","event":"success","exit_code":0,"job":"all","max_attempts":1,"step":"bytes","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":2,"step":"flaky","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"delay_seconds":0.01,"duration_ms":"MS","event":"retry","exit_code":3,"job":"all","max_attempts":2,"step":"flaky","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":2,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":2,"step":"flaky","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":2,"duration_ms":"MS","event":"success","exit_code":0,"job":"all","max_attempts":2,"step":"flaky","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":1,"step":"lenient","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"duration_ms":"MS","event":"failed","exit_code":4,"job":"all","max_attempts":1,"step":"lenient","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"event":"skipped","job":"all","max_attempts":1,"step":"never","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"env":{"GREETING":"hello"},"event":"start","job":"all","max_attempts":1,"step":"7","time":"TIME","workflow":"workflow"}"#,
                r#"{"attempt":1,"duration_ms":"MS","event":"failed","exit_code":5,"job":"all","max_attempts":1,"step":"7","time":"TIME","workflow":"workflow"}"#,
                r#"{"event":"job_ended","exit_code":5,"job":"all","message":"step 7 `exit 5`: exit code 5","state":"failed","time":"TIME","workflow":"workflow"}"#,
                r#"{"event":"run_ended","state":"failed","time":"TIME","workflow":"workflow"}"#,
                r#"{"event":"job_ended","exit_code":null,"job":"after","message":"a job before it failed","state":"skipped","time":"TIME","workflow":"workflow"}"#,
            ]
        );
    }
}
