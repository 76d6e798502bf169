//! Sockets that carry messages with descriptors, and datagrams with options of their own.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddrV4,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// Descriptors in one message at most: an image's layers, a jail's binds and a few more. The
/// kernel's own limit is 253 (`SCM_MAX_FD`).
pub const MESSAGE_FDS: usize = 64;

/// A connected pair of unix sockets that keep message boundaries and notice the other end's death.
///
/// # Errors
/// As socketpair(2).
pub fn message_pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` has room for the two descriptors the kernel writes.
    let ret = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            pair.as_mut_ptr(),
        )
    };
    check("socketpair", ret)?;
    Ok((own(pair[0]), own(pair[1])))
}

/// What a unix socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stream socket that takes connections.
    Listener,
    /// One that keeps message boundaries, as [`message_pair`] makes two.
    Messages,
    /// Another.
    Other,
}

/// What the descriptor is as a unix socket.
///
/// # Errors
/// `ENOTSOCK` for what is no socket; else as getsockopt(2).
pub fn kind(socket: BorrowedFd<'_>) -> Result<Kind, SysError> {
    let domain = option(socket, libc::SO_DOMAIN)?;
    let sort = option(socket, libc::SO_TYPE)?;
    let listens = option(socket, libc::SO_ACCEPTCONN)? != 0;
    Ok(match (domain, sort, listens) {
        (libc::AF_UNIX, libc::SOCK_STREAM, true) => Kind::Listener,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, false) => Kind::Messages,
        _ => Kind::Other,
    })
}

/// An option of the socket itself that is a number.
fn option(socket: BorrowedFd<'_>, name: libc::c_int) -> Result<libc::c_int, SysError> {
    let mut value: libc::c_int = 0;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has four, and the length.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    check("getsockopt", ret)?;
    Ok(value)
}

/// Room for one control message, aligned as `cmsghdr` must be.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Bytes of a control message before its data.
const HEADER_BYTES: usize = 16;

/// `CMSG_SPACE` of [`MESSAGE_FDS`] descriptors, 4 bytes each.
const CONTROL_BYTES: usize = HEADER_BYTES + MESSAGE_FDS * size_of::<RawFd>();

/// Sends one message with descriptors. *After fork.*
///
/// # Errors
/// `EINVAL` over [`MESSAGE_FDS`]; else as sendmsg(2). No signal is raised when the peer is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SysError> {
    if fds.len() > MESSAGE_FDS {
        return Err(SysError { call: "sendmsg (too many descriptors)", errno: libc::EINVAL });
    }
    let mut data = IoSlice::new(bytes);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut message = empty_message();
    message.msg_iov = (&raw mut data).cast();
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        // SAFETY: BorrowedFd is a transparent RawFd, so `fds` is that many bytes of numbers.
        let numbers =
            unsafe { std::slice::from_raw_parts(fds.as_ptr().cast::<u8>(), size_of_val(fds)) };
        attach(&mut message, &mut control, (libc::SOL_SOCKET, libc::SCM_RIGHTS), numbers);
    }
    // SAFETY: `message` points at `data` and `control`, which live through the call.
    let ret = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check("sendmsg", ret).map(drop)
}

/// Sends one datagram of UDP that may go over this many hops (`IP_TTL`, ip(7)), whatever is set for the
/// socket.
///
/// # Errors
/// `EINVAL` for no hop; else as sendmsg(2).
pub fn send_with_hops(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    to: SocketAddrV4,
    hops: u8,
) -> Result<(), SysError> {
    let mut data = IoSlice::new(bytes);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut name = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    let mut message = empty_message();
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of_val(&name)).unwrap_or_default();
    message.msg_iov = (&raw mut data).cast();
    message.msg_iovlen = 1;
    let hops = libc::c_int::from(hops).to_ne_bytes();
    attach(&mut message, &mut control, (libc::IPPROTO_IP, libc::IP_TTL), &hops);
    // SAFETY: `message` points at `name`, `data` and `control`, which live through the call.
    let ret = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check("sendmsg", ret).map(drop)
}

/// Has `message` carry one control message of this level and type; of a payload that does not fit
/// `control`, its beginning.
fn attach(
    message: &mut libc::msghdr,
    control: &mut Control,
    (level, kind): (libc::c_int, libc::c_int),
    payload: &[u8],
) {
    let payload = payload.get(..CONTROL_BYTES - HEADER_BYTES).unwrap_or(payload);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE is arithmetic on a length.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as usize;
    // SAFETY: the call only computes a pointer into `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: `control` is aligned and msg_controllen covers at least one header, so the pointer is not
    // null and what it points at is ours alone.
    let header = unsafe { &mut *header };
    header.cmsg_level = level;
    header.cmsg_type = kind;
    // SAFETY: CMSG_LEN is arithmetic on a length.
    header.cmsg_len = unsafe { libc::CMSG_LEN(length) } as usize;
    // SAFETY: the header lies in `control`, so its data does too.
    let start = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: `control` has room for the payload behind one header, as it was cut to that.
    unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), start, payload.len()) };
}

/// Descriptors that came with a message.
pub type Received = [Option<OwnedFd>; MESSAGE_FDS];

/// Receives one message and its descriptors; 0 bytes mean that the other end is gone. *After fork.*
///
/// One that went without reading everything is told by recvmsg(2) once, as `ECONNRESET`, before what it
/// has sent: it is passed over.
///
/// # Errors
/// `EMSGSIZE` for a message that does not fit `bytes` or carries more descriptors than
/// [`MESSAGE_FDS`]; else as recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Received), SysError> {
    let mut data = IoSliceMut::new(bytes);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut message = empty_message();
    message.msg_iov = (&raw mut data).cast();
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    let ret = loop {
        // SAFETY: `message` points at `data` and `control`, which live through the call and are as
        // long as it says.
        let ret =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check("recvmsg", ret) {
            Err(error) if matches!(error.errno, libc::EINTR | libc::ECONNRESET) => {}
            other => break other?,
        }
    };
    let mut received: Received = [const { None }; MESSAGE_FDS];
    // SAFETY: `message` was filled in by the kernel; the call only computes a pointer.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the pointer is null or points at a header the kernel wrote into `control`.
    let header = unsafe { header.as_ref() };
    if let Some(header) =
        header.filter(|h| h.cmsg_level == libc::SOL_SOCKET && h.cmsg_type == libc::SCM_RIGHTS)
    {
        // SAFETY: CMSG_LEN is arithmetic on a length.
        let count = (header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<RawFd>();
        // SAFETY: the header lies in `control`, so its data does too.
        let start = unsafe { libc::CMSG_DATA(header) };
        let mut raw: [RawFd; MESSAGE_FDS] = [-1; MESSAGE_FDS];
        let count = count.min(MESSAGE_FDS);
        // SAFETY: the kernel wrote `count` descriptor numbers at `start`, and `raw` has room for
        // them; as bytes the copy needs no alignment.
        unsafe {
            std::ptr::copy_nonoverlapping(
                start,
                raw.as_mut_ptr().cast(),
                count * size_of::<RawFd>(),
            );
        }
        for (slot, fd) in received.iter_mut().zip(raw).take(count) {
            *slot = Some(own(fd));
        }
    }
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(SysError { call: "recvmsg (truncated)", errno: libc::EMSGSIZE });
    }
    Ok((usize::try_from(ret).unwrap_or_default(), received))
}

fn empty_message() -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers, for which all zeros is a valid value: no
    // name, no data, no control.
    unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr, UdpSocket},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn an_end_that_goes_is_gone_whether_or_not_it_has_read_everything() {
        for is_read in [true, false] {
            let (mine, other) = message_pair().unwrap();
            send(mine.as_fd(), b"asked", &[]).unwrap();
            let mut buffer = [0; 16];
            if is_read {
                assert_eq!(receive(other.as_fd(), &mut buffer).unwrap().0, 5);
            }
            send(other.as_fd(), b"answer", &[]).unwrap();
            drop(other);
            assert_eq!(receive(mine.as_fd(), &mut buffer).unwrap().0, 6, "{is_read}");
            assert_eq!(receive(mine.as_fd(), &mut buffer).unwrap().0, 0, "{is_read}");
        }
    }

    /// As root, who may see whole packets.
    #[test]
    fn a_datagram_has_the_hops_that_it_was_sent_with_and_the_next_its_socket_s() {
        // SAFETY: socket takes three numbers.
        let raw = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_UDP)
        };
        let raw = UdpSocket::from(own(check("socket", raw).unwrap()));
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(to) = receiver.local_addr().unwrap() else {
            unreachable!("bound to IPv4")
        };
        sender.set_ttl(7).unwrap();

        send_with_hops(sender.as_fd(), b"whole", to, 255).unwrap();
        sender.send_to(b"plain", to).unwrap();
        let refused = send_with_hops(sender.as_fd(), b"none", to, 0);

        let mut seen = Vec::new();
        while seen.len() < 2 {
            let mut packet = [0; 64];
            let length = raw.recv(&mut packet).unwrap();
            // Others on the machine send datagrams too.
            if length == 33 && packet[22..24] == to.port().to_be_bytes() {
                seen.push((packet[8], packet[28..33].to_vec()));
            }
        }
        assert_eq!(seen, [(255, b"whole".to_vec()), (7, b"plain".to_vec())]);
        assert_eq!(refused.unwrap_err().errno, libc::EINVAL);
    }
}
