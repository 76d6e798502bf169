//! JavaScript and TypeScript on Node.

use serde_json::{Value, json};
use testkit::{
    Server,
    api::interpreter::{CodeError, CodeErrorKind, RunOutput, RunResult},
};

use super::{BEGUN_MS, RUN, run_in, server};

async fn js(server: &Server, code: &str) -> RunResult {
    run_in(server, RUN, code, json!({"language": "javascript"})).await
}

async fn ts(server: &Server, code: &str) -> RunResult {
    run_in(server, RUN, code, json!({"language": "ts"})).await
}

/// The value of code that must end well.
fn main(result: &RunResult) -> &RunOutput {
    assert!(result.success, "{:?} {:?}", result.error, result.logs);
    result.results.iter().find(|output| output.is_main).expect("a value")
}

fn text(result: &RunResult) -> &str {
    main(result).text.as_deref().unwrap_or_default()
}

fn error(result: RunResult) -> CodeError {
    result.error.expect("an error")
}

#[tokio::test]
async fn state_stays_and_everything_may_be_declared_again() {
    let server = server();
    js(&server, "const a = 1; let b = 2; var c = 3; class D { v = 4 }; function f() { return 5 }")
        .await;
    let code = "const a = 10; let b = 20; class D { v = 40 }; function f() { return 50 }\n[a, b, c, new D().v, f()]";
    let result = js(&server, code).await;
    assert_eq!(main(&result).json, Some(json!([10, 20, 3, 40, 50])));
    assert_eq!(text(&result), "[ 10, 20, 3, 40, 50 ]");
    assert_eq!(result.execution_count, 2);
    let failed = js(&server, "const half = 1; throw new Error('x')").await;
    assert!(!failed.success && !failed.context_reset);
    assert_eq!(text(&js(&server, "half").await), "1");
    let free = "const receive = 1, sources = 2, load = 3, fs = 4, vm = 5\nreceive + sources + load + fs + vm";
    assert_eq!(text(&js(&server, free).await), "15");
}

#[tokio::test]
async fn await_modules_and_output_work() {
    let server = server();
    let code = "const slow = await new Promise(done => setTimeout(() => done({ a: 1 }), 20)); slow";
    assert_eq!(main(&js(&server, code).await).json, Some(json!({"a": 1})));
    let code = "import fs, { existsSync as exists } from 'fs'\nimport * as path from 'node:path'\n\
        [typeof fs.readFileSync, exists('/'), path.join('a', 'b')]";
    let imported = js(&server, code).await;
    assert_eq!(main(&imported).json, Some(json!(["function", true, "a/b"])));
    assert_eq!(imported.logs.stderr, Vec::<String>::new());
    server.shell("s", "mkdir lib; echo 'export const own = 7; export default 8' > lib/own.mjs; echo 'module.exports = 9' > old.js").await;
    let code = "import eight, { own } from './lib/own.mjs'\nconst again = await import('./lib/own.mjs');\n\
        [own, eight, again.own, require('./old.js')]";
    assert_eq!(main(&js(&server, code).await).json, Some(json!([7, 8, 7, 9])));
    let result = js(
        &server,
        "console.log('out', { a: 1 }); console.error('err'); process.stdout.write('x')",
    )
    .await;
    assert_eq!(result.logs.stdout, ["out { a: 1 }\n", "x"]);
    assert_eq!(result.logs.stderr, ["err\n"]);
    let child = js(
        &server,
        "require('child_process').execSync('cat; ls /proc/self/fd | wc -l').toString().trim()",
    )
    .await;
    assert_eq!(text(&child), "'4'", "a program sees its three, and the directory it reads");
}

#[tokio::test]
async fn more_than_a_pipe_holds_is_written_where_its_run_is() {
    let server = server();
    for language in ["javascript", "typescript"] {
        let run = |code: &'static str| run_in(&server, RUN, code, json!({"language": language}));
        for (code, out, err) in [
            ("console.log('a'.repeat(200_000))", 200_001, 0),
            ("console.error('b'.repeat(200_000)); console.log(1)", 2, 200_001),
            (
                "console.log('a'.repeat(3_000_000)); console.error('b'.repeat(3_000_000))",
                3_000_001,
                3_000_001,
            ),
            ("console.log('a'.repeat(3_000_000)); throw new Error('x')", 3_000_001, 0),
            ("console.log('a'.repeat(3_000_000)); process.exit(0)", 3_000_001, 0),
        ] {
            let wrote = run(code).await;
            let [stdout, stderr] = [wrote.logs.stdout.concat(), wrote.logs.stderr.concat()];
            assert_eq!((stdout.len(), stderr.len()), (out, err), "{language}: {code}");
            assert!(stdout.trim_end().bytes().all(|byte| byte == b'a' || byte == b'1'), "{code}");
            assert!(stderr.trim_end().bytes().all(|byte| byte == b'b'), "{code}");
            let next = run("console.log('next'); console.error('too')").await;
            let (stdout, stderr) = (next.logs.stdout.concat(), next.logs.stderr.concat());
            assert_eq!((stdout.as_str(), stderr.as_str()), ("next\n", "too\n"), "after {code}");
        }
    }
}

#[tokio::test]
async fn values_show_themselves() {
    let server = server();
    for (code, expected, value) in [
        ("'text'", "'text'", None),
        ("10n", "10n", None),
        ("null", "null", None),
        ("x => x", "[Function (anonymous)]", None),
        ("new Map([[1, 2]])", "Map(1) { 1 => 2 }", None),
        (
            "({ a: [1, { b: null }] })",
            "{ a: [ 1, { b: null } ] }",
            Some(json!({"a": [1, {"b": null}]})),
        ),
        ("var own = {}; own.own = own; own", "<ref *1> { own: [Circular *1] }", None),
        ("0.1 + 0.2", "0.30000000000000004", None),
    ] {
        let result = js(&server, code).await;
        assert_eq!((text(&result), &main(&result).json), (expected, &value), "{code}");
    }
    for nothing in ["undefined", "const quiet = 1", "function quieter() {}", "if (false) 1", ""] {
        assert_eq!(js(&server, nothing).await.results, [], "{nothing}");
    }
    let code = "display.html('<b>1</b>'); display.svg('<svg/>'); display.markdown('# 2'); display({ a: 3 })\n\
        display(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]));\n\
        ({ [Symbol.for('Jupyter.display')]() { return { 'text/html': '<i>', 'application/x-own': 4 } } })";
    let shown = js(&server, code).await.results;
    assert_eq!(shown[0].html.as_deref(), Some("<b>1</b>"));
    assert_eq!(shown[1].svg.as_deref(), Some("<svg/>"));
    assert_eq!(shown[2].markdown.as_deref(), Some("# 2"));
    assert_eq!(shown[3].json, Some(json!({"a": 3})));
    assert_eq!(shown[4].png.as_deref(), Some("iVBORw0KGgo="));
    assert_eq!(
        (shown[5].html.as_deref(), &shown[5].extra["application/x-own"]),
        (Some("<i>"), &json!(4))
    );
    assert_eq!(
        shown.iter().map(|output| output.is_main).collect::<Vec<_>>(),
        [false, false, false, false, false, true]
    );
}

#[tokio::test]
async fn errors_say_where_in_the_code() {
    let server = server();
    let thrown = error(js(&server, "function f() {\n  null.x\n}\nf()").await);
    assert_eq!(
        (thrown.name.as_str(), thrown.line_number, thrown.kind),
        ("TypeError", Some(2), CodeErrorKind::Exception)
    );
    assert_eq!(thrown.traceback[..3], ["cell-1.js:2", "  null.x", "       ^"]);
    assert!(thrown.traceback.iter().any(|line| line == "    at f (cell-1.js:2:8)"), "{thrown:?}");
    assert!(!thrown.traceback.join("\n").contains("sandbar"), "{thrown:?}");
    let syntax = error(js(&server, "1\nlet 2").await);
    assert_eq!((syntax.name.as_str(), syntax.line_number), ("SyntaxError", Some(2)));
    let own = error(js(&server, "class Own extends Error {}\nthrow new Own('mine')").await);
    assert_eq!((own.name.as_str(), own.value.as_str()), ("Own", "mine"));
    assert_eq!(error(js(&server, "throw 5").await).value, "5");
    for code in [
        "Promise.reject(new Error('nobody caught it')); 1",
        "setTimeout(() => { throw new Error('nobody caught it') }, 5); await new Promise(() => {})",
        "await Promise.reject(new Error('nobody caught it'))",
    ] {
        assert_eq!(error(js(&server, code).await).value, "nobody caught it", "{code}");
    }
    assert_eq!(text(&js(&server, "1 + 1").await), "2");
}

#[tokio::test]
async fn an_error_that_cannot_be_described_ends_its_run_and_keeps_the_context() {
    let server = server();
    for language in ["javascript", "typescript"] {
        let run = |code: &'static str| {
            run_in(&server, RUN, code, json!({"language": language, "timeoutMs": 20_000}))
        };
        run("var kept = 1").await;
        for (code, value) in [
            (
                "class Bad extends Error { get message() { return this['info'].text } }; throw new Bad()",
                "reading 'text'",
            ),
            ("throw new Proxy({}, { get() { throw 1 } })", "cannot be described"),
            (
                "throw new Proxy({}, { getPrototypeOf() { throw new Error('mine') } })",
                "cannot be described: mine",
            ),
            (
                "throw Object.defineProperty(new Error(), 'stack', { get() { throw this } })",
                "cannot be described",
            ),
            ("Promise.reject(new Proxy({}, { get() { throw 1 } })); 1", "cannot be described"),
        ] {
            let failed = run(code).await;
            assert!(!failed.context_reset, "{language}: {code}: {failed:?}");
            let told = error(failed);
            assert_eq!(told.kind, CodeErrorKind::Exception, "{language}: {code}: {told:?}");
            assert!(told.value.contains(value), "{language}: {code}: {told:?}");
            assert_eq!(text(&run("kept").await), "1", "{language}: {code}");
        }
        let code = "({ [Symbol.for('nodejs.util.inspect.custom')]() { throw new Proxy({}, { get() { throw 1 } }) } })";
        let shown = run(code).await;
        assert!(text(&shown).contains("cannot be shown"), "{language}: {shown:?}");
    }
}

#[tokio::test]
async fn typescript_has_its_own_syntax_and_its_own_places() {
    let server = server();
    for (code, expected) in [
        ("const n: number = 1; n as unknown as string", "1"),
        ("enum Color { Red, Green = 5 }\nColor[5]", "'Green'"),
        ("const enum Size { Small = 2 }\nSize.Small", "2"),
        ("namespace Deep.Er { export const v: string = 'n' }\nDeep.Er.v", "'n'"),
        (
            "interface P { x: number }\nfunction get<T extends P>(p: T): number { return p.x! }\nget<P>({ x: 3 })",
            "3",
        ),
        (
            "abstract class A { constructor(private readonly k: string) {} get() { return this.k } }\nclass B extends A {}\nnew B('k').get()",
            "'k'",
        ),
        (
            "import type { Nothing } from './none'\nimport { join, type ParsedPath } from 'path'\njoin('a', 'b') satisfies string",
            "'a/b'",
        ),
        ("await Promise.resolve(5 as number)", "5"),
        (
            "const log: string[] = []\nfunction note(value: any, context: any) { log.push(`${context.kind} ${context.name}`) }\nclass C { @note method(): void {} }\nlog.join()",
            "'method method'",
        ),
    ] {
        let result = ts(&server, code).await;
        assert_eq!(text(&result), expected, "{code}");
    }
    for nothing in [
        "enum Quiet { A }",
        "type T = string | null",
        "interface I { a: number }",
        "namespace E {}",
    ] {
        assert_eq!(ts(&server, nothing).await.results, [], "{nothing}");
    }
    assert_eq!(
        text(&ts(&server, "Color.Green + Size.Small").await),
        "7",
        "what was declared stays"
    );
    let code = "interface Q {\n  a: number\n}\n\nfunction boom(q: Q): never {\n  throw new Error('boom ' + q.a)\n}\n\nboom({ a: 1 })";
    let thrown = error(ts(&server, code).await);
    assert_eq!(thrown.line_number, Some(6));
    let places: Vec<_> = thrown.traceback.iter().filter(|line| line.contains(" at ")).collect();
    assert!(places[0].contains(".ts:6:9") && places[1].contains(".ts:9:1"), "{thrown:?}");
    let syntax = error(ts(&server, "const ok = 1\nconst z: number = ;").await);
    assert_eq!((syntax.name.as_str(), syntax.line_number), ("SyntaxError", Some(2)));
    // The older decorators, where the project says so.
    server.shell("s", r#"mkdir old; echo '{"compilerOptions": {"experimentalDecorators": true}}' > old/tsconfig.json"#).await;
    let made = server
        .post(super::CONTEXTS, &json!({"id": "old", "language": "typescript", "cwd": "old"}))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let code = "function old(target: object, key: string) { seen = key }\nlet seen = ''\nclass O { @old method() {} }\nseen";
    let result = run_in(&server, "/v1/sandboxes/s/contexts/old/run", code, json!({})).await;
    assert_eq!(text(&result), "'method'");
}

#[tokio::test]
async fn what_is_displayed_or_thrown_between_two_steps_is_in_nobodys_way() {
    let server = server();
    let fs = "const fs = require('fs')";
    js(&server, &format!("{fs}; setTimeout(() => {{ display('late'); fs.writeFileSync('/tmp/read', '') }}, 100); 1")).await;
    server.shell("s", "until [ -e /tmp/read ]; do sleep 0.01; done").await;
    assert_eq!(text(&js(&server, "1 + 1").await), "2");
    for code in [
        "process.nextTick(() => { throw new Error('tick') }); 1",
        "new (require('stream').Readable)().destroy(new Error('tick')); await 1",
        "queueMicrotask(() => { throw new Error('tick') }); 1",
    ] {
        assert_eq!(error(js(&server, code).await).value, "tick", "{code}");
        assert_eq!(text(&js(&server, "typeof fs.readFileSync").await), "'function'", "{code}");
    }
}

#[tokio::test]
async fn node_is_interrupted_ended_and_started_again() {
    let server = server();
    for language in ["javascript", "typescript"] {
        let run = |code: &'static str, timeout: Value| {
            let more = json!({"language": language, "timeoutMs": timeout});
            let server = &server;
            async move { run_in(server, RUN, code, more).await }
        };
        run("const kept = 1", Value::Null).await;
        for code in [
            "while (true) {}",
            "await new Promise(() => {})",
            "await 1; while (true) {}",
            "while (true) await null",
            "import path from 'path'; while (true) {}",
            "require('child_process').execSync('sleep 60')",
        ] {
            let result = run(code, json!(BEGUN_MS)).await;
            assert!(!result.context_reset, "{code}: {result:?}");
            assert_eq!(error(result).kind, CodeErrorKind::Timeout, "{code}");
            assert_eq!(text(&run("kept", Value::Null).await), "1", "{code}");
        }
        let exited = run("console.log('before'); process.exit(3)", Value::Null).await;
        assert_eq!(exited.logs.stdout, ["before\n"], "{exited:?}");
        assert!(exited.context_reset);
        assert_eq!(error(exited).kind, CodeErrorKind::Exited);
        assert_eq!(error(run("kept", Value::Null).await).name, "ReferenceError");
        let crashed = run("process.abort()", Value::Null).await;
        assert_eq!(error(crashed).kind, CodeErrorKind::Crashed);
        assert_eq!(text(&run("1 + 1", Value::Null).await), "2");
    }
}

#[tokio::test]
async fn variables_of_a_run_and_missing_programs() {
    let server = server();
    let more = json!({"language": "js", "env": {"GREETING": "hello"}});
    assert_eq!(text(&run_in(&server, RUN, "process.env.GREETING", more).await), "'hello'");
    assert_eq!(js(&server, "process.env.GREETING").await.results, []);
    server.shell("bare", "rm -r /usr/local/lib/node_modules/typescript").await;
    let path = "/v1/sandboxes/bare/run";
    let missing = super::ask(&server, path, "1", json!({"language": "typescript"})).await;
    assert_eq!(
        (missing.code(), &missing.json["error"]["details"]["missing"]),
        ("INTERPRETER_NOT_AVAILABLE", &json!("typescript"))
    );
    let plain = run_in(&server, path, "1 + 1", json!({"language": "javascript"})).await;
    assert_eq!(text(&plain), "2", "JavaScript needs no compiler");
    let imports =
        run_in(&server, path, "import fs from 'fs'", json!({"language": "javascript"})).await;
    assert!(error(imports).value.contains("npm install typescript"));
    server.shell("bare", "rm /usr/local/bin/node").await;
    let made = server.post("/v1/sandboxes/bare/contexts", &json!({"language": "javascript"})).await;
    assert_eq!((made.status, &made.json["error"]["details"]["missing"]), (501, &json!("node")));
}
