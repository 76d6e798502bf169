//! What code in a context must not do.

use serde_json::{Value, json};
use testkit::Server;

use crate::attack;

const RUN: &str = "/v1/sandboxes/s/run";

/// A server whose sandboxes have interpreters.
fn server() -> Server {
    Server::start_with_default_image(env!("CARGO_BIN_EXE_sandbar"))
}

/// What code shows at its end, or its error.
async fn run(server: &Server, path: &str, language: &str, code: &str) -> Value {
    let body = json!({"code": code, "language": language});
    let answer = server.post(path, &body).await;
    assert_eq!(answer.status, 200, "{code}: {}", answer.text);
    match answer.json["results"].as_array().and_then(|results| results.last()) {
        Some(result) => result["text"].clone(),
        None => answer.json["error"]["name"].clone(),
    }
}

#[tokio::test]
async fn interpreters_have_no_more_rights_than_commands() {
    let server = server();
    let status = "grep -E '^(NoNewPrivs|Seccomp|Seccomp_filters|CapBnd|CapEff):' /proc/self/status | tr -d '\\t' | paste -sd,";
    let command = server.shell("s", status).await;
    let code = format!("import subprocess; subprocess.getoutput({status:?})");
    let python = run(&server, RUN, "python", &code).await;
    assert_eq!(python, json!(format!("'{}'", command.trim())), "programs that code starts");
    let code = "','.join(l.replace('\\t', '').strip() for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp', 'CapBnd', 'CapEff')))";
    let own = run(&server, RUN, "python", code).await;
    let sorted = |text: &str| {
        let mut fields: Vec<_> =
            text.trim().trim_matches('\'').split(',').map(str::to_owned).collect();
        fields.sort();
        fields
    };
    assert_eq!(sorted(own.as_str().unwrap()), sorted(&command), "the interpreter itself");
}

#[tokio::test]
async fn code_that_fails_is_told_what_the_policy_refused() {
    let server = server();
    let sandbox = json!({"id": "s", "network": {"allow": ["good.test"]}});
    assert_eq!(server.post("/v1/sandboxes", &sandbox).await.status, 201);
    let python = "import socket\n\
        try: socket.getaddrinfo('evil.test', 80)\n\
        except OSError: pass\n\
        socket.create_connection(('192.168.77.1', 80), 5)";
    let javascript = "await require('node:dns').promises.lookup('evil.test').catch(() => {});\n\
        await new Promise((done, failed) => require('node:net').connect(80, '192.168.77.1', done).on('error', failed))";
    let bash = "getent hosts evil.test; timeout 5 bash -c 'true < /dev/tcp/192.168.77.1/80'";
    let refused = json!({
        "connections": 1, "destinations": ["192.168.77.1:80/tcp"], "names": ["evil.test"]
    });
    for (language, code) in [("python", python), ("javascript", javascript), ("bash", bash)] {
        let body = json!({"code": code, "language": language});
        let answer = server.post(RUN, &body).await;
        assert_eq!(answer.json["success"], false, "{language}: {}", answer.text);
        assert_eq!(answer.json["refused"], refused, "{language}: {}", answer.text);
        // It succeeds in spite of that.
        let tried = match language {
            "bash" => format!("{code} || true"),
            "python" => format!("try:\n exec({code:?})\nexcept OSError: pass"),
            _ => format!("await (async () => {{ {code} }})().catch(() => {{}})"),
        };
        let answer = server.post(RUN, &json!({"code": tried, "language": language})).await;
        assert_eq!(answer.json["success"], true, "{language}: {}", answer.text);
        assert_eq!(answer.json["refused"], Value::Null, "{language}: {}", answer.text);
    }
    // As events.
    let id = "s".parse().unwrap();
    let request = testkit::api::interpreter::RunCode::new(python);
    let mut events = server.client().run_code_stream(&id, None, &request).await.unwrap();
    let mut last = None;
    while let Some(event) = futures_util::StreamExt::next(&mut events).await {
        last = Some(serde_json::to_value(event.unwrap()).unwrap());
    }
    let last = last.expect("it ends");
    assert_eq!((&last["type"], &last["refused"]), (&json!("end"), &refused));
}

#[tokio::test]
async fn interpreters_inherit_no_descriptor_but_their_own() {
    let server = server();
    let code = "import os\n{fd: os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in range(4)}, \
        [fd for fd in range(3, 64) if os.path.exists(f'/proc/self/fd/{fd}') and os.stat(fd).st_mode & 0o170000 == 0o140000]";
    let seen = run(&server, RUN, "python", code).await;
    let expected = "({0: '/dev/null', 1: 'pipe', 2: 'pipe', 3: 'socket'}, [3";
    assert!(seen.as_str().unwrap().starts_with(expected), "{seen}");
    let code = "import subprocess; subprocess.run('ls /proc/self/fd', shell=True, close_fds=False, capture_output=True, text=True).stdout.split()";
    let inherited = run(&server, RUN, "python", code).await;
    assert_eq!(inherited, "['0', '1', '2', '3']", "the last is the directory that is read");
}

#[tokio::test]
async fn cannot_touch_the_agent_from_a_context() {
    let server = server();
    for (language, code, expected) in [
        ("python", "open('/proc/1/mem', 'rb')", "PermissionError"),
        ("python", "open('/proc/1/environ').read()", "PermissionError"),
        ("python", "import os; os.readlink('/proc/1/fd/3')", "PermissionError"),
        ("python", "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)", "-1"),
        ("python", "import ctypes; ctypes.CDLL(None).unshare(0x10000000)", "-1"),
        (
            "python",
            "import ctypes; ctypes.CDLL(None).mount(b'none', b'/mnt', b'tmpfs', 0, 0)",
            "-1",
        ),
        ("javascript", "require('fs').readFileSync('/proc/1/environ')", "Error"),
    ] {
        assert_eq!(run(&server, RUN, language, code).await, expected, "{code}");
    }
    // A signal does not end the init of a pid namespace from inside of it.
    run(&server, RUN, "python", "import os; os.kill(1, 9)").await;
    assert_eq!(run(&server, RUN, "python", "6 * 7").await, "42");
}

#[tokio::test]
async fn attacks_hold_in_a_context_too() {
    let server = server();
    let facts = json!({"host": attack::facts_of_the_host()});
    for group in [attack::ESCAPE, attack::LEAK] {
        let found = attack::in_a_context(&server, group, &facts).await;
        // An interpreter has descriptors of its own; those that it inherits have their own test.
        let faults = attack::faults(found.iter().filter(|finding| finding.id != "E40"));
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(found.len() > 50, "{}", found.len());
        assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
    }
}

#[tokio::test]
async fn contexts_and_sandboxes_never_see_each_other_s_variables() {
    let server = server();
    for round in 0..20 {
        let made = server.post("/v1/sandboxes/s/contexts", &json!({"id": "again"})).await;
        assert_eq!(made.status, 201, "{round}: {}", made.text);
        let path = "/v1/sandboxes/s/contexts/again/run";
        assert_eq!(run(&server, path, "python", "secret").await, "NameError", "{round}");
        run(&server, path, "python", &format!("secret = {round}")).await;
        assert_eq!(run(&server, RUN, "python", "secret").await, "NameError", "{round}");
        assert_eq!(server.delete("/v1/sandboxes/s/contexts/again").await.status, 204);
    }
    run(&server, RUN, "python", "import os; secret = 1; os.environ['SECRET'] = '1'").await;
    let other = "/v1/sandboxes/other/run";
    assert_eq!(run(&server, other, "python", "secret").await, "NameError");
    let answer = server.get("/v1/sandboxes/other/contexts/again").await;
    assert_eq!(answer.code(), "CONTEXT_NOT_FOUND");
}

#[tokio::test]
async fn nothing_of_chance_is_the_same_in_two_contexts() {
    let server = server();
    for chance in [
        "import random; random.random()",
        "import os; os.urandom(8)",
        "import uuid; uuid.uuid4().hex",
        "import secrets; secrets.token_hex()",
        "import numpy; float(numpy.random.rand())",
        "import numpy; float(numpy.random.default_rng().random())",
        "import tempfile; tempfile.mktemp()",
        "import ssl; ssl.RAND_bytes(16)",
    ] {
        let mut seen = std::collections::BTreeSet::new();
        for id in ["a", "b", "c"] {
            let (contexts, body) = (format!("/v1/sandboxes/{id}/contexts"), json!({"id": "fresh"}));
            let made = server.post(&contexts, &body).await;
            assert_eq!(made.status, 201, "{}", made.text);
            let path = format!("{contexts}/fresh");
            let drawn = run(&server, &format!("{path}/run"), "python", chance).await;
            assert!(seen.insert(drawn.to_string()), "{chance}: {seen:?}");
            assert_eq!(server.delete(&path).await.status, 204);
        }
    }
}

#[tokio::test]
async fn a_changed_warm_start_is_the_sandbox_s_own_harm() {
    let server = server();
    let shell = "head -c 1000000 /dev/urandom > /var/cache/sandbar/python; ls /var/cache/sandbar";
    assert_eq!(server.shell("s", shell).await, "python\n");
    let is_warm = "open('/proc/self/cmdline').read().split('\\0')[1] == '__resume'";
    assert_eq!(run(&server, RUN, "python", is_warm).await, "False");
    assert_eq!(run(&server, "/v1/sandboxes/other/run", "python", is_warm).await, "True");
}

/// Each of these says that it is what the image's file is, by its magic and its fingerprint, and is not.
#[tokio::test]
async fn a_forged_warm_start_is_the_sandbox_s_own_harm() {
    let server = server();
    // The head: magic, fingerprint, registers, number of segments, the segments (address, length,
    // offset, access), number of ranges, the ranges.
    let forge = r#"
import os, struct, sys
path = '/var/cache/sandbar/python'
real = open('/tmp/real', 'rb').read()
def write(registers, segments, soon, pages=b''):
    words = [registers, len(segments)] + [w for s in segments for w in s] + [len(soon)] + [w for s in soon for w in s]
    head = real[:40] + struct.pack(f'<{len(words)}Q', *[w % 2**64 for w in words])
    open(path, 'wb').write(head.ljust(65536, b'\0') + pages)
NONE, PAGE = 2**64 - 1, 4096
here = 0x100000000000
forgeries = {
    'registers nowhere': lambda: write(16, [(here, PAGE, NONE, 7)], []),
    'registers over an end': lambda: write(2**64 - 16, [(2**64 - PAGE, PAGE, NONE, 7)], []),
    'the kernel': lambda: write(-2**47, [(-2**47, PAGE, NONE, 7)], []),
    'the first page': lambda: write(0, [(0, PAGE, NONE, 7)], []),
    'not in pages': lambda: write(here + 16, [(here + 1, PAGE, 65537, 7)], []),
    'behind the end': lambda: write(here, [(here, PAGE, 2**40, 7)], []),
    'code that is none': lambda: write(here, [(here, PAGE, 65536, 7)], [], b'\xcc' * PAGE),
    'more than there is': lambda: write(here, [(here, 2**45, NONE, 7)], [(here, 2**45)]),
    'a thousand times the same': lambda: write(here, [(here, PAGE, NONE, 7)] * 1000, []),
    'segments without end': lambda: open(path, 'wb').write(real[:48] + b'\xff' * 65488),
    'a pipe': lambda: os.mkfifo(path),
    'a directory': lambda: os.mkdir(path),
    'memory of the agent': lambda: os.symlink('/proc/1/mem', path),
    'a device': lambda: os.symlink('/dev/zero', path),
}
if os.path.isdir(path): os.rmdir(path)
elif os.path.lexists(path): os.unlink(path)
forgeries[sys.argv[1]]()
"#;
    server.put("/v1/sandboxes/s/files/tmp/forge.py", forge).await;
    let names = "cp /var/cache/sandbar/python /tmp/real; grep -oE \"^    '[^']+'\" /tmp/forge.py | tr -d \"'\" | sed 's/^ *//'";
    let names = server.shell("s", names).await;
    assert_eq!(names.lines().count(), 14, "{names}");
    for name in names.lines() {
        server.shell("s", &format!("python3 /tmp/forge.py '{name}'")).await;
        let contexts = "/v1/sandboxes/s/contexts";
        let made = server.post(contexts, &json!({"id": "forged"})).await;
        assert_eq!(made.status, 201, "{name}: {}", made.text);
        let path = format!("{contexts}/forged");
        assert_eq!(run(&server, &format!("{path}/run"), "python", "1 + 1").await, "2", "{name}");
        assert_eq!(server.delete(&path).await.status, 204);
    }
    let is_warm = "open('/proc/self/cmdline').read().split('\\0')[1] == '__resume'";
    assert_eq!(run(&server, "/v1/sandboxes/other/run", "python", is_warm).await, "True");
}

/// E61: what a forged file makes of whoever goes on from it is kept from the first instruction on.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn code_of_a_forged_warm_start_is_kept_like_any() {
    let server = server();
    let facts = json!({"host": attack::facts_of_the_host()});
    // It has the socket to the agent, for which there is a test of its own.
    let is_descriptor = |finding: &attack::Finding| {
        finding.id == "E40" || finding.what == "a descriptor came along"
    };
    let found = attack::warm_start::in_both(&server, attack::ESCAPE, &facts).await;
    let [held, broke] = found.map(|found| {
        found.into_iter().filter(|finding| !is_descriptor(finding)).collect::<Vec<_>>()
    });
    assert!(held.len() > 50, "{}", held.len());
    attack::judge("forged warm starts", &held, &broke);
}

#[tokio::test]
async fn lies_on_the_way_to_the_agent_harm_the_liar_alone() {
    let server = server();
    for lie in [
        r"b'\xff\xff\xff\xff' + b'x' * 100",
        r"b'\x00\x00\x00\x02{}'",
        r"b'\x00\x00\x00\x05hello'",
        r#"b'\x00\x00\x00\x22{"id": 1, "op": "end", "count": 99}'"#,
        r#"(lambda t: len(t).to_bytes(4, 'big') + t)(b'{"id":1,"op":"result","main":true,"data":' + b'[' * 100000 + b'}')"#,
    ] {
        let code = format!("import os; os.write(3, {lie}); os.write(3, {lie})");
        let body = json!({"code": code, "timeoutMs": 2000});
        let answer = server.post(RUN, &body).await;
        assert_eq!(answer.status, 200, "{lie}: {}", answer.text);
        assert_eq!(server.shell("s", "echo lives").await, "lives\n", "{lie}");
        server.post("/v1/sandboxes/s/contexts/default-python/restart", &json!({})).await;
        assert_eq!(run(&server, RUN, "python", "6 * 7").await, "42", "{lie}");
    }
}
