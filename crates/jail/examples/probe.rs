#![allow(warnings)]
use jail::*;
use std::io::*;
use std::os::fd::*;
use std::os::unix::net::*;
use std::time::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a.get(1).map(|s| s.as_str()) == Some("__launcher") {
        std::process::exit(if jail::launcher_main() == std::process::ExitCode::SUCCESS {
            0
        } else {
            1
        });
    }
    if a.get(1).map(|s| s.as_str()) == Some("__agent") {
        let h: jail::handoff::Handoff = a[2].parse().unwrap();
        let l = UnixListener::from(sys::fd::adopt(h.listen).unwrap());
        for c in l.incoming() {
            let mut c = c.unwrap();
            let mut s = String::new();
            let mut b = std::io::BufReader::new(c.try_clone().unwrap());
            b.read_line(&mut s).unwrap();
            let o = std::process::Command::new("/bin/sh").arg("-c").arg(s.trim()).output();
            match o {
                Ok(o) => {
                    c.write_all(&o.stdout);
                    c.write_all(&o.stderr);
                }
                Err(e) => {
                    writeln!(c, "spawn {e} handoff {h:?}");
                }
            }
        }
        return;
    }
    let net = if a[1] == "none" {
        None
    } else {
        Some(NodeNetwork { base: "10.213.0.0".parse().unwrap(), prefix: 16 })
    };
    let node = NodeSpec { state_dir: "/tmp/probe/state".into(), name: "prb".into(), network: net };
    std::fs::create_dir_all(&node.state_dir).unwrap();
    let prog = sealed_program().unwrap();
    let mut l = Launcher::start(&node, prog.as_fd()).unwrap();
    l.set_up_network().unwrap();
    let layer = std::fs::File::open(&a[2]).unwrap();
    let n: u32 = a[3].parse().unwrap();
    let mut ts = vec![];
    let mut kt = vec![];
    for i in 0..n {
        let sock = format!("/tmp/probe/{i}.sock");
        std::fs::remove_file(&sock);
        let li = UnixListener::bind(&sock).unwrap();
        let cfg = std::fs::File::open("/dev/null").unwrap();
        let spec = JailSpec {
            jail: JailId(i as u64 + 1),
            uid_base: 0x4000_0000 + 65536 * (i),
            address: net.and_then(|x| x.address(i)),
            limits: Limits { memory_bytes: 1 << 30, pids: 256, cpu_millis: 2000 },
            hostname: Hostname::of("probe"),
            binds: if a.len() > 5 { vec![Bind { target: "usr".into() }] } else { vec![] },
        };
        let t = Instant::now();
        let b;
        let binds: Vec<BorrowedFd> = if a.len() > 5 {
            b = std::fs::File::open("/usr").unwrap();
            vec![b.as_fd()]
        } else {
            vec![]
        };
        let r = l.launch(
            &spec,
            &JailFiles {
                listener: li.as_fd(),
                config: cfg.as_fd(),
                layers: &[layer.as_fd()],
                binds: &binds,
            },
        );
        ts.push(t.elapsed().as_secs_f64() * 1e3);
        match r {
            Err(e) => {
                println!("launch: {e}");
                break;
            }
            Ok(r) => {
                if n == 1 {
                    println!("{r:?}");
                    let mut c = UnixStream::connect(&sock).unwrap();
                    writeln!(c, "{}", a[4]).unwrap();
                    let mut s = String::new();
                    c.read_to_string(&mut s).unwrap();
                    println!("{s}");
                    println!("{:?}", jail::usage("prb", JailId(1)));
                    println!("{:?}", l.jails());
                }
            }
        }
        let t = Instant::now();
        println!(
            "{}",
            l.kill(JailId(i as u64 + 1)).map(|_| "".to_string()).unwrap_or_else(|e| e.to_string())
        );
        kt.push(t.elapsed().as_secs_f64() * 1e3);
        l.remove_files(JailId(i as u64 + 1)).unwrap();
    }
    ts.sort_by(|a, b| a.partial_cmp(b).unwrap());
    kt.sort_by(|a, b| a.partial_cmp(b).unwrap());
    println!(
        "launch p50 {:.2} max {:.2}  kill p50 {:.2} max {:.2}",
        ts[ts.len() / 2],
        ts[ts.len() - 1],
        kt[kt.len() / 2],
        kt[kt.len() - 1]
    );
    println!("{:?}", l.tear_down());
}
