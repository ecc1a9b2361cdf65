//! What is found before anything runs.

use super::{parse, wrong};

#[test]
fn needs_exist_and_have_an_order() {
    assert!(wrong("jobs: {build: {steps: [x]}, test: {needs: biuld, steps: [x]}}").contains("did you mean `build`?"));
    let cycle = "jobs:
  d: {steps: [x], needs: c}
  a: {steps: [x], needs: c}
  b: {steps: [x], needs: a}
  c: {steps: [x], needs: [b]}
";
    assert_eq!(wrong(cycle), "test.yaml:3:3: jobs.a: waits for itself: a → c → b → a (`→` is `needs`)");
    assert!(wrong("jobs: {a: {steps: [x]}, b: {needs: [a, a], steps: [x]}}").contains("needed already"));
}

#[test]
fn an_input_is_made_by_a_job_before() {
    let file = |needs: &str| {
        format!(
            "jobs:
  build: {{steps: [x], outputs: {{dist: out}}}}
  middle: {{steps: [x], needs: build}}
  test: {{steps: [x], inputs: [dist], {needs}}}
"
        )
    };
    parse(&file("needs: middle"));
    assert!(
        wrong(&file("env: {}")).contains("`dist` is made by `build`, which doesn't run before; add `needs: [build]`")
    );
    assert!(wrong(&file("needs: build").replace("inputs: [dist]", "inputs: [dits]")).contains("did you mean `dist`?"));
    assert!(wrong("jobs: {a: {steps: [x], outputs: {o: x}, inputs: [o]}}").contains("by `a` itself"));
    let cells = "jobs: {a: {steps: [x], matrix: {n: [1, 2]}, outputs: {o: x}}, b: {steps: [x], needs: a, inputs: [o]}}";
    assert!(wrong(cells).contains("`o-n-1`, `o-n-2`; name one of them"), "{}", wrong(cells));
}

#[test]
fn an_artifact_has_one_maker() {
    let two = "jobs: {a: {steps: [x], outputs: {o: x}}, b: {steps: [x], outputs: {o: y}}}";
    assert!(wrong(two).contains("`o` is made by `a` too"));
    let cells = "jobs: {a: {steps: [x], matrix: {n: [1, 2], m: [3]}, outputs: {'o-${{ matrix.m }}': x}}}";
    assert!(wrong(cells).contains("several cells make `o-3`"), "{}", wrong(cells));
}

#[test]
fn jobs_of_a_run_have_names_of_their_own() {
    assert!(
        wrong("jobs: {a: {steps: [x], matrix: {n: [1]}}, a-n-1: {steps: [x]}}").contains("would be called `a-n-1`")
    );
    assert!(wrong("jobs: {a: {steps: [x], matrix: {n: ['x y', 'x/y']}}}").contains("two jobs called `a-n-x_y`"));
}

#[test]
fn restored_artifacts_do_not_meet() {
    let file = |inputs: &str, more: &str| {
        format!(
            "jobs:
  a: {{steps: [x], outputs: {{one: out/lib, two: lib}}}}
  b: {{steps: [x], needs: a, inputs: {inputs}{more}}}
"
        )
    };
    parse(&file("[one, {name: two, path: other}]", ""));
    assert!(wrong(&file("[one, two]", "")).contains("both come to `lib`"));
    assert!(wrong(&file("[one]", ", files: {./lib: x}")).contains("where `files` puts one"));
}

#[test]
fn paths_stay_in_the_job_directory() {
    for (job, key) in [
        ("{steps: [{run: x, workdir: ../up}]}", "steps[0].workdir"),
        ("{steps: [{run: x, workdir: /tmp}]}", "steps[0].workdir"),
        ("{steps: [x], outputs: {o: a/../../b}}", "outputs.o"),
        ("{steps: [x], files: {/etc/passwd: x}}", "files./etc/passwd"),
        ("{steps: [x], files: {../x: x}}", "files.../x"),
        ("{steps: [{run: x, workdir: '${{ matrix.d }}'}], matrix: {d: ['..']}}", "steps[0].workdir"),
    ] {
        let found = wrong(&format!("jobs: {{a: {job}}}"));
        assert!(found.contains(key) && found.contains("isn't inside of the job directory"), "{job}: {found}");
    }
    let input = "jobs: {a: {steps: [x], outputs: {o: x}}, b: {steps: [x], needs: a, inputs: [{name: o, path: ..}]}}";
    assert!(wrong(input).contains("isn't inside"));
    assert!(wrong("jobs: {a: {steps: [x], outputs: {o: ''}}}").contains("`.` for all"));
    assert!(wrong("jobs: {a: {steps: [x], files: {a/b: x, a/./b: x}}}").contains("the same file"));
}

#[test]
fn what_is_selected_of_the_repository_is_checked() {
    for (files, told) in [
        ("{from: ../up}", "files.from: `../up` leads out"),
        ("[/etc]", "files[0]: `/etc` leads out"),
        ("{from: 'a${{ matrix.x }}'}", "isn't evaluated in a selection"),
        ("{from: a, include: ['']}", "files.include[0]: is empty"),
        ("{from: a, exclude: [../x]}", "files.exclude[0]: `../x` leads out"),
        ("{form: a, include: ['*']}", "`form` is no key of a selection of files; did you mean `from`?"),
        ("{from: a, include: '*'}", "a list belongs here"),
        ("[{a: {txt: b}}]", "`txt` is no key of a file; did you mean `text`?"),
        ("[3]", "a text, or a selection of files as a map"),
    ] {
        let found = wrong(&format!("jobs: {{a: {{steps: [x], files: {files}}}}}"));
        assert!(found.contains(told), "{files}: {found}");
    }
    assert!(wrong("jobs: {a: {steps: [x], copy_repo: false, files: [src]}}").contains("selects from the repository"));
    for (key, value) in [("files", "[src]"), ("modified", "out")] {
        let found =
            wrong(&format!("jobs: {{a: {{steps: [x], executor: {{kind: hooks, execute: x}}, {key}: {value}}}}}"));
        assert!(found.contains(&format!("a.{key}: can't be had where hooks")), "{found}");
    }
}

#[test]
fn what_comes_back_is_checked() {
    for (modified, told) in [
        ("../up", "isn't below the current directory"),
        ("/tmp/x", "isn't below the current directory"),
        ("''", "`.` for the current one"),
        ("{to: out, archive: zip}", "write `tar.zst` or `tar.s2`"),
        ("{form: x}", "`form` is no key of `modified`"),
        ("{to: out, include: [a/../b]}", "leads out"),
        ("{name: a/b}", "modified"),
        ("{to: '${{ run.id }}'}", "only `${{ matrix.<dimension> }}`"),
    ] {
        let found = wrong(&format!("jobs: {{a: {{steps: [x], modified: {modified}}}}}"));
        assert!(found.contains(told), "{modified}: {found}");
    }
    let two = "jobs: {a: {steps: [x], modified: {name: m}}, b: {steps: [x], outputs: {m: x}}}";
    assert!(wrong(two).contains("`m`"));
}

#[test]
fn names_are_used_only_where_they_exist() {
    let steps = |second: &str| {
        format!(
            "jobs: {{a: {{steps: [{{name: one, run: x}}, {{name: two, run: x, {second}}}, {{name: three, run: x}}]}}}}"
        )
    };
    for (second, told) in [
        ("env: {A: '${{ steps.three.outputs.x }}'}", "comes later"),
        ("env: {A: '${{ steps.two.outputs.x }}'}", "in the step `two` itself"),
        ("env: {A: '${{ steps.on.outputs.x }}'}", "did you mean `one`"),
        ("env: {A: '${{ steps.one.output.x }}'}", "did you mean `outputs`"),
        ("env: {A: '${{ matrix.os }}'}", "has no `matrix`"),
        ("env: {A: '${{ needs.b.result }}'}", "doesn't need `b`; add `needs: [b]`"),
        ("env: {A: '${{ secrets.TOKEN }}'}", "list the name in `secrets`"),
        ("env: {A: '${{ run.number }}'}", "`run` has no `number`; it has id, name"),
        ("env: {A: '${{ job.id }}'}", "`job` has no `id`"),
        ("env: {A: '${{ github.ref }}'}", "there is no `github`"),
        ("env: {A: '${{ success() }}'}", "stands only in `if`"),
        ("env: {A: '${{ a b }}'}", "side by side"),
        ("if: '${{ steps.three.outcome }}'", "comes later"),
    ] {
        let found = wrong(&steps(second));
        assert!(found.contains(told) && found.lines().count() == 1, "{second}: {found}");
    }
    parse(&steps("env: {A: \"${{ steps.one.outputs['x'] }} ${{ previous_step.stdout }} ${{ env.HOME }}\"}"));

    for (job, told) in [
        ("{steps: [{run: x, env: {A: '${{ previous_step.stdout }}'}}]}", "no step comes before"),
        ("{steps: [x], env: {A: '${{ steps.x.stdout }}'}}", "no step has run yet"),
        ("{steps: [x], if: '${{ steps.x.outcome }}'}", "no step has run yet"),
        ("{steps: [x], if: \"${{ env.NO == '1' }}\"}", "isn't known before"),
        ("{steps: [x], if: \"${{ env.A == '1' }}\", env: {A: '${{ run.id }}'}}", "an expression itself"),
        ("{steps: [x], labels: {a: '${{ run.id }}'}}", "only `${{ matrix.<dimension> }}`"),
        ("{steps: [x], matrix: {os: [a]}, labels: {a: '${{ matrix.so }}'}}", "did you mean `os`"),
        (
            "{steps: [x], matrix: {os: [a], include: [{os: b, x: 1}]}, env: {X: '${{ matrix.x }}'}}",
            "`a-os-a` has no `x`",
        ),
    ] {
        let found = wrong(&format!("jobs: {{a: {job}}}"));
        assert!(found.contains(told) && found.lines().count() == 1, "{job}: {found}");
    }
    assert!(wrong("env: {A: '${{ matrix.os }}'}\njobs: {a: {steps: [x]}}").contains("the workflow as a whole"));
}

#[test]
fn conditions_that_can_never_hold_are_found() {
    for job in ["{steps: [x], if: failure()}", "{steps: [x], if: \"${{ failure() || run.name == 'x' }}\"}"] {
        assert!(wrong(&format!("jobs: {{a: {job}}}")).contains("`failure()` can't hold"), "{job}");
    }
    assert!(wrong("jobs: {a: {steps: [{run: x, if: failure()}]}}").contains("no step comes before"));
    parse("jobs: {a: {steps: [x, {run: x, if: failure()}]}, b: {steps: [x], needs: a, if: failure()}}");
    parse("jobs: {a: {steps: [x], if: always()}, b: {steps: [x], if: cancelled()}}");
}

#[test]
fn conditions_that_were_meant_otherwise_are_found() {
    for (condition, told) in [
        ("sucess()", "did you mean `success`"),
        ("matrix.os == 'linux'", "write `${{ matrix.os == 'linux' }}`"),
        ("failure() || cancelled()", "write `${{ failure() || cancelled() }}`"),
        ("${{ true }} && ${{ false }}", "one `${{ … }}`"),
        ("'  '", "is empty"),
    ] {
        let found = wrong(&format!("jobs:\n  a:\n    steps: [x]\n    if: {condition}\n"));
        assert!(found.contains(told) && found.lines().count() == 1, "{condition}: {found}");
    }
    for condition in ["test -f x", "true", "'[ -n \"$X\" ]'", "make"] {
        parse(&format!("jobs:\n  a:\n    steps: [x]\n    if: {condition}\n"));
    }
}

#[test]
fn expressions_stand_only_where_they_are_evaluated() {
    for (job, told) in [
        ("{steps: ['echo ${{ run.id }}']}", "put it in `env`"),
        ("{steps: [{run: 'echo ${{ run.id }}'}]}", "put it in `env`"),
        ("{steps: [{name: '${{ run.id }}', run: x}]}", "isn't evaluated here"),
        ("{steps: [x], queue: '${{ matrix.q }}', matrix: {q: [a]}}", "isn't evaluated here"),
        ("{steps: [x], executor: {kind: hooks, execute: '${{ run.id }}'}}", "isn't evaluated in executors"),
        ("{steps: [x], files: {'${{ run.id }}': x}}", "isn't evaluated"),
    ] {
        let found = wrong(&format!("jobs: {{a: {job}}}"));
        assert!(found.contains(told), "{job}: {found}");
    }
}

#[test]
fn a_large_file_is_checked() {
    use std::fmt::Write as _;
    let mut file = "jobs:\n".to_owned();
    for layer in 0..100 {
        for job in 0..10 {
            let needs: Vec<_> = (0..10).filter(|_| layer > 0).map(|need| format!("j{}x{need}", layer - 1)).collect();
            writeln!(file, "  j{layer}x{job}: {{steps: ['true'], needs: [{}]}}", needs.join(", ")).unwrap();
        }
    }
    let plan = parse(&file).plan(&executr_spec::workflow::PlanOptions::default()).unwrap();
    assert_eq!((plan.jobs.len(), plan.jobs[999].needs.len()), (1_000, 10));
}
