//! What listens: the kernel's own tables, /proc/net/tcp and tcp6 (proc(5)).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use api::{limit::LISTENING_PORTS, port::ListeningPort};

/// The state LISTEN (`TCP_LISTEN`, `include/net/tcp_states.h`).
const LISTEN: &str = "0A";

/// The lowest listening ports, sorted. A table that cannot be read has none.
pub(super) fn look() -> Vec<ListeningPort> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = File::open(table) else { continue };
        for line in BufReader::new(table).lines().map_while(Result::ok) {
            found.extend(listener(&line));
            if found.len() > LISTENING_PORTS {
                found.pop_last();
            }
        }
    }
    let listening = |(port, ip): (u16, IpAddr)| ListeningPort { port, address: ip.to_string() };
    found.into_iter().map(listening).collect()
}

/// Port and address of a line that describes a listening socket.
fn listener(line: &str) -> Option<(u16, IpAddr)> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = columns.next()?;
    let state = columns.nth(1)?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then(|| Some((port, ip(address)?)))?
}

/// An address as the tables write it: words of 32 bits, each in the machine's own order.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(8 * at..8 * at + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_seen_with_its_address() {
        for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let ip: IpAddr = address.parse().unwrap();
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let expected = ListeningPort { port, address: address.to_owned() };
            assert!(look().contains(&expected), "{expected:?}");
        }
    }

    #[test]
    fn only_listeners_are_read() {
        let line = |state| {
            format!("   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 0 0 0")
        };
        let expected =
            (8080, IpAddr::from(u32::from_str_radix("0100007F", 16).unwrap().to_ne_bytes()));
        assert_eq!(listener(&line("0A")), Some(expected));
        assert_eq!(listener(&line("01")), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(listener(""), None);
    }
}
