use super::*;

fn listed() -> JailNetwork {
    let range = |port, protocol| AddressRange {
        base: Ipv4Addr::new(1, 2, 0, 0),
        prefix: 16,
        port,
        protocol,
    };
    JailNetwork {
        address: Ipv4Addr::new(10, 0, 0, 2),
        reach: Reach::Listed(AllowList {
            revision: 3,
            ranges: vec![range(None, None), range(Some(53), Some(Protocol::Udp))],
            learned: learned(),
        }),
    }
}

fn learned() -> Vec<Learned> {
    let address = Ipv4Addr::new(1, 2, 3, 4);
    let service = Some((Protocol::Tcp, 443));
    let one = Learned { address, service, seconds: 60 };
    vec![one, Learned { service: None, seconds: 0, ..one }]
}

fn requests() -> Vec<Request> {
    vec![
        Request::Launch(JailSpec {
            jail: JailId(7),
            volume: Some(JailId(9)),
            inherited_bytes: 1 << 41,
            uid_base: 65_536,
            network: Some(listed()),
            limits: Limits {
                memory_bytes: 1 << 40,
                pids: 9,
                cpu_millis: 1500,
                cpu_weight: 300,
                disk_bytes: Some(5),
            },
            hostname: Hostname::of("x"),
            layers: vec![
                Layer { shelf: Shelf::Layers, key: [0xab; KEY_BYTES] },
                Layer { shelf: Shelf::Host, key: [0; KEY_BYTES] },
            ],
            binds: vec![Bind::Programs, Bind::Authorities],
            views: vec![View::Image, View::Whole(JailId(8)), View::Own(JailId(1 << 40))],
        }),
        Request::Kill(JailId(u64::MAX)),
        Request::Clear(JailId(1 << 40)),
        Request::Remove(JailId(0)),
        Request::RemoveFiles(JailId(1)),
        Request::Jails(JailId(5)),
        Request::Volumes(JailId(1 << 35)),
        Request::SetUpNetwork,
        Request::SetUpVolumes,
        Request::CopyVolume { from: JailId(3), to: JailId(1 << 33), is_read_only: true },
        Request::CopyVolume { from: JailId(3), to: JailId(4), is_read_only: false },
        Request::TearDown,
        Request::Freeze(JailId(8)),
        Request::Thaw(JailId(9)),
        Request::Reclaim(JailId(10)),
        Request::Notify(JailId(11)),
        Request::Admit(JailId(7), listed()),
        Request::Admit(JailId(7), JailNetwork { reach: Reach::Internet, ..listed() }),
        Request::Admit(JailId(7), JailNetwork { reach: Reach::Nothing, ..listed() }),
        Request::Learn { jail: JailId(7), revision: 3, learned: learned() },
        Request::Refused(JailId(7)),
        Request::Name(JailId(7), Hostname::of("x")),
    ]
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Done,
        Reply::Launched { pid: 42, start_time: 1 << 40 },
        Reply::Jails(vec![(JailId(1), 10), (JailId(2), 0)]),
        Reply::Learned { in_force: true },
        Reply::Count(1 << 40),
        Reply::Failed(JailError::Step { step: "a".into(), call: "b".into(), errno: 13 }),
        Reply::Failed(JailError::Refused("c".into())),
        Reply::Failed(JailError::Lost("d".into())),
        Reply::Failed(JailError::Entry("e".into())),
        Reply::Volumes(Volumes::Limited),
        Reply::Volumes(Volumes::Plain("f".into())),
    ]
}

#[test]
fn messages_decode_to_what_was_encoded() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn cut_longer_and_foreign_messages_are_malformed() {
    let messages = requests().iter().map(Request::encode).collect::<Vec<_>>();
    for message in messages {
        for cut in 0..message.len() {
            assert_eq!(Request::decode(&message[..cut]), Err(Malformed));
        }
        assert_eq!(Request::decode(&[&message[..], &[0]].concat()), Err(Malformed));
    }
    for message in replies().iter().map(Reply::encode) {
        for cut in 0..message.len() {
            assert_eq!(Reply::decode(&message[..cut]), Err(Malformed));
        }
    }
    assert_eq!(Request::decode(&[200]), Err(Malformed));
}

/// A message is read in one way: what it says, written again, is the same message.
#[test]
fn hostile_messages_are_refused_or_read_in_one_way() {
    let requests: Vec<Vec<u8>> = requests().iter().map(Request::encode).collect();
    let examples: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
    hostile::bytes(&examples, |bytes| {
        if let Ok(request) = Request::decode(bytes) {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    });
    let replies: Vec<Vec<u8>> = replies().iter().map(Reply::encode).collect();
    let examples: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
    hostile::bytes(&examples, |bytes| drop(Reply::decode(bytes)));
}
