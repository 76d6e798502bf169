//! Escapes and privileges.

use serde_json::json;
use testkit::Server;

use crate::server;

async fn python(server: &Server, program: &str) -> String {
    let body = json!({"command": ["python3", "-c", program]});
    let answer = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(answer.json["exitCode"], 0, "{}", answer.text);
    answer.json["stdout"].as_str().unwrap_or_default().trim().to_owned()
}

/// E01
#[tokio::test]
async fn no_host_id_is_mapped_and_sandboxes_share_none() {
    let server = server();

    let a = server.shell("a", "cat /proc/self/uid_map /proc/self/gid_map").await;
    let b = server.shell("b", "cat /proc/self/uid_map").await;

    for line in a.lines() {
        let fields: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        assert_eq!((fields[0], fields[2]), (0, 65_536));
        assert!(fields[1] >= 65_536);
    }
    assert!(!a.contains(b.trim()));
}

/// E02, E03
#[tokio::test]
async fn no_dangerous_capability_is_left_and_none_can_be_gained() {
    let server = server();

    let status = server.shell("s", "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").await;

    assert!(status.contains("CapBnd:\t00000000800405fb"), "{status}");
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
    assert!(status.contains("CapAmb:\t0000000000000000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
}

/// E04
#[tokio::test]
async fn no_namespace_is_shared_with_the_host_or_a_neighbour() {
    let server = server();
    let look = "readlink /proc/self/ns/user /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/net \
                /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/cgroup /proc/self/ns/time";

    let a = server.shell("a", look).await;
    let b = server.shell("b", look).await;

    for (a, b) in a.lines().zip(b.lines()) {
        assert_ne!(a, b);
        let kind = a.split(':').next().unwrap_or_default();
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(a, host.to_string_lossy());
    }
    assert_eq!(a.lines().count(), 8);
}

/// E05, E06, E08, E09, E10, E12, E15, E16, E41
#[tokio::test]
async fn cannot_mount_unshare_join_make_devices_or_set_the_kernel() {
    let server = server();
    for attempt in [
        "mount -t tmpfs x /mnt",
        "mount -o remount,rw,bind /proc/sys",
        "umount /proc/sys",
        "umount -l /proc/kcore",
        "unshare -U true",
        "unshare -m true",
        "unshare -n true",
        "nsenter -t 1 -m true",
        "mknod /tmp/b b 8 0",
        "mknod /tmp/c c 1 3",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/user/max_user_namespaces",
        "echo h > /proc/sysrq-trigger",
        "echo 0 1 > /proc/self/uid_map",
        "hostname other",
        "chroot / unshare -m true",
    ] {
        let verdict = format!("({attempt}) 2>/dev/null && echo BROKEN || echo HELD");
        assert_eq!(server.shell("s", &verdict).await, "HELD\n", "{attempt}");
    }
}

/// E11, E34
#[tokio::test]
async fn cannot_walk_out_of_the_root() {
    let server = server();

    let roots =
        "stat -c %d:%i / /proc/1/root/../.. /proc/self/cwd/../../../../.. | sort -u | wc -l";
    assert_eq!(server.shell("s", roots).await, "1\n");
    let chroot = "import os\n\
                  i = os.stat('/'); os.makedirs('/tmp/x', exist_ok=True); f = os.open('/', 0)\n\
                  os.chroot('/tmp/x'); os.fchdir(f)\n\
                  [os.chdir('..') for _ in range(64)]; os.chroot('.'); j = os.stat('/')\n\
                  print('HELD' if (i.st_dev, i.st_ino) == (j.st_dev, j.st_ino) else 'BROKEN')";
    assert_eq!(python(&server, chroot).await, "HELD");
}

/// E07, E19, E20, E28
#[tokio::test]
async fn cannot_make_calls_outside_the_policy() {
    let server = server();

    let clone3 = "import ctypes as c\n\
                  l = c.CDLL(None, use_errno=True)\n\
                  print(l.syscall(435, c.create_string_buffer(88), 88), c.get_errno())";
    assert_eq!(python(&server, clone3).await, "-1 38");
    let calls = "import ctypes as c\n\
                 l = c.CDLL(None, use_errno=True)\n\
                 bad = []\n\
                 for n in (154, 155, 165, 166, 169, 175, 176, 246, 248, 249, 250, 272, 298, 304, 308, 313, 321, 323, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447):\n\
                 \x20   r = l.syscall(n, 0, 0, 0, 0, 0, 0)\n\
                 \x20   if r != -1 or c.get_errno() not in (1, 38): bad.append((n, r, c.get_errno()))\n\
                 print(bad)";
    assert_eq!(python(&server, calls).await, "[]");
}

/// E21, E22, E23
#[tokio::test]
async fn cannot_open_sockets_beyond_the_ordinary_ones() {
    let server = server();
    let families = "import socket\n\
                    ok = set()\n\
                    for f in range(47):\n\
                    \x20for t in (1, 2, 3, 5):\n\
                    \x20 try: socket.socket(f, t).close(); ok.add(f)\n\
                    \x20 except OSError: pass\n\
                    print(sorted(ok))";
    assert_eq!(python(&server, families).await, "[1, 2, 10, 16]");
    let netlink = "import socket\n\
                   def opens(p):\n\
                   \x20try: socket.socket(16, 3, p).close(); return True\n\
                   \x20except OSError: return False\n\
                   print([p for p in range(24) if opens(p)])";
    assert_eq!(python(&server, netlink).await, "[0]");
}

/// E13, E14
#[tokio::test]
async fn sees_only_harmless_devices() {
    let server = server();

    let devices = server.shell("s", "ls /dev | xargs").await;

    assert_eq!(devices, "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n");
}

/// E29
#[tokio::test]
async fn set_user_id_programs_gain_nothing() {
    let server = server();

    let attempt =
        "cp /usr/bin/id /tmp/s; chmod 4755 /tmp/s; setpriv --reuid 1000 --clear-groups /tmp/s -u";

    assert_eq!(server.shell("s", attempt).await, "1000\n");
}

/// E31, E32, E33
#[tokio::test]
async fn cannot_touch_the_agent() {
    let server = server();
    for attempt in [
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "head -c1 /proc/1/mem",
        "readlink /proc/1/fd/3",
        "cat /proc/1/fd/3",
        "readlink /proc/1/cwd",
        "ls /proc/1/root/",
        "cat /proc/1/exe > /dev/null",
        "echo x > /proc/1/exe",
        "prlimit --pid 1 --nofile=8",
        "prlimit --pid 1 --cpu=1:1",
        "python3 -c 'import ctypes; exit(0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 1)'",
    ] {
        let verdict = format!("({attempt}) >/dev/null 2>&1 && echo BROKEN || echo HELD");
        assert_eq!(server.shell("s", &verdict).await, "HELD\n", "{attempt}");
    }
    server
        .post("/v1/sandboxes/s/exec", &json!({"command": "kill -9 1; kill -STOP 1; kill -9 -1"}))
        .await;
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
}

/// E35
#[tokio::test]
async fn a_working_directory_is_never_of_the_host() {
    let server = server();
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_else(|_| "none".to_owned());

    let cwds = (3..16)
        .map(|n| format!("/proc/self/fd/{n}"))
        .chain(["/proc/1/cwd".to_owned(), "/proc/1/root".to_owned()]);
    for cwd in cwds {
        let body = json!({"command": "cat ../../../etc/machine-id etc/machine-id 2>/dev/null; ls -d /proc/self/cwd/../../..", "cwd": cwd});
        let answer = server.post("/v1/sandboxes/s/exec", &body).await;
        assert!(!answer.text.contains(host.trim()), "{cwd}: {}", answer.text);
    }
}

/// E39
#[tokio::test]
async fn inherits_no_descriptor() {
    let server = server();

    let open = server.shell("s", "ls /proc/self/fd | xargs").await;

    // 3 is the directory that `ls` itself reads.
    assert_eq!(open, "0 1 2 3\n");
}
