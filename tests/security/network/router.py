"""The world behind a node under test: servers on every address of this network namespace.

Tells on stdout what it sees, a line each:
  ready                      everything listens
  query NAME                 somebody asks the name server
  udp ADDRESS LENGTH         a datagram has come to port 5000 of ADDRESS, and is answered
  ended PORT                 a connection to the ticking server (port 7000) has broken; PORT is its own

Whoever connects to port 7001 turns `rebind.test`.
"""

import socket
import struct
import threading
import time

NAME_SERVER = "203.0.113.53"

# What names lead to: addresses, or another name; and for how long, in seconds.
ZONE = {
    "good.test": (["203.0.113.10"], 300),
    "other.test": (["203.0.113.11"], 300),
    "brief.test": (["203.0.113.12"], 0),
    "long.test": (["203.0.113.13"], 1_000_000),
    "alias.test": ("cdn.elsewhere.test", 300),
    "cdn.elsewhere.test": (["203.0.113.14"], 300),
    "mixed.test": (["192.168.77.1", "203.0.113.15"], 300),
    "private.test": (["192.168.77.1"], 300),
    "metadata.test": (["169.254.169.254"], 300),
    "loopback.test": (["127.0.0.1"], 300),
    "to-private.test": ("private.test", 300),
}


# Set when `rebind.test` leads elsewhere.
TURNED = threading.Event()


def say(line):
    print(line, flush=True)


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def resolve(name):
    """The records of an answer. `rebind.test` is public until it is turned, and private ever after: by how
    often it was asked for would be by chance, for who waits too long asks again."""
    if name == "rebind.test":
        address = "192.168.77.1" if TURNED.is_set() else "203.0.113.16"
        return [(name, 1, socket.inet_aton(address), 0)]
    if name.endswith(".wild.test"):
        return [(name, 1, socket.inet_aton("203.0.113.17"), 300)]
    target, seconds = ZONE.get(name, ([], 0))
    if isinstance(target, str):
        return [(name, 5, encode(target), seconds)] + resolve(target)
    return [(name, 1, socket.inet_aton(address), seconds) for address in target]


def answer(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin1"))
        at += 1 + query[at]
    kind = struct.unpack_from(">H", query, at + 1)[0]
    name = ".".join(labels).lower()
    say(f"query {name}")
    records = resolve(name) if kind == 1 else []
    # Whatever has no records exists all the same.
    head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, len(records), 0, 0)
    data = [
        encode(owner) + struct.pack(">HHIH", kind, 1, seconds, len(value)) + value
        for owner, kind, value, seconds in records
    ]
    return head + query[12 : at + 5] + b"".join(data)


def serve_names(udp):
    while True:
        query, client = udp.recvfrom(4096)
        udp.sendto(answer(query), client)


def serve_tcp(server):
    while True:
        connection, _ = server.accept()
        connection.sendall(b"hello\n")
        connection.close()


def tick(connection, port):
    try:
        while True:
            connection.sendall(b"tick\n")
            time.sleep(0.02)
    except OSError:
        say(f"ended {port}")


def serve_ticks(server):
    while True:
        connection, client = server.accept()
        threading.Thread(target=tick, args=(connection, client[1]), daemon=True).start()


def serve_turns(server):
    while True:
        connection, _ = server.accept()
        TURNED.set()
        connection.sendall(b"turned\n")
        connection.close()


def serve_datagrams(udp):
    while True:
        datagram, client = udp.recvfrom(65536)
        say(f"udp {udp.getsockname()[0]} {len(datagram)}")
        udp.sendto(b"hello", client)


def tcp(port):
    return socket.create_server(("0.0.0.0", port), backlog=256)


def udp(address, port):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((address, port))
    return bound


SERVERS = [(serve_tcp, tcp(port)) for port in [25, 53, 80, 443]]
SERVERS += [(serve_ticks, tcp(7000)), (serve_turns, tcp(7001)), (serve_names, udp(NAME_SERVER, 53))]
SERVERS += [(serve_datagrams, udp(address, 5000)) for address in ["203.0.113.10", "192.168.77.1"]]
for serve, listening in SERVERS:
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
say("ready")
threading.Event().wait()
