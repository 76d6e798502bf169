"""An application with everything that a proxy can get wrong. Listens on the port of its argument, on
loopback only, and writes a line when it is ready."""

import base64, hashlib, http.server, json, struct, sys, threading

released = threading.Event()
chat = []


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    trailers = []

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def pieces(self):
        """The request's body, as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            while line := self.rfile.readline().strip():
                self.trailers.append(line.decode())
        elif length := int(self.headers.get("Content-Length", 0)):
            while length:
                piece = self.rfile.read1(min(length, 65536))
                length -= len(piece)
                yield piece

    def do(self):
        path = self.path.split("?")[0]
        if path == "/headers":
            self.reply(json.dumps([self.command, self.path, self.headers.items()]).encode())
        elif path == "/echo":
            self.send_response(201)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("X-Method", self.command)
            self.end_headers()
            for piece in self.pieces():
                self.chunk(piece)
            self.chunk(b"")
        elif path == "/length":
            self.reply(str(sum(map(len, self.pieces()))).encode())
        elif path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            released.wait()
            self.wfile.write(b"data: second\n\n")
            self.close_connection = True
        elif path == "/poll":
            released.wait()
            self.reply(b"")
        elif path == "/release":
            released.set()
            self.reply(b"")
        elif path == "/trailers":
            self.trailers = []
            for _ in self.pieces():
                pass
            self.send_response(200)
            for line in self.trailers:
                self.send_header("X-Heard", line)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Sum")
            self.end_headers()
            self.wfile.write(b"4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n")
        elif path == "/range":
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            body = bytes(range(256))[int(first) : int(last) + 1]
            self.reply(body, 206, [("Content-Range", f"bytes {first}-{last}/256")])
        elif path == "/answer":
            headers = [
                ("Set-Cookie", "a=1; Path=/; Domain=localhost; HttpOnly"),
                ("Set-Cookie", "b=2;domain=.localhost"),
                ("Set-Cookie", "c=3; SameSite=Lax"),
                ("Alt-Svc", 'h3=":443"'),
                ("Strict-Transport-Security", "max-age=1; includeSubDomains"),
                ("Clear-Site-Data", '"cookies"'),
                ("Connection", "x-hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "timeout=5"),
                ("X-Sandbar-Cursor", "1"),
                ("X-Own", "kept"),
            ]
            self.reply(b"", 200, headers)
        elif path == "/redirect":
            query = self.path.partition("?")[2]
            self.reply(b"", 302, [("Location", query)])
        elif path == "/break":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif path in ("/ws", "/chat"):
            self.websocket(path == "/chat")
        elif path == "/page":
            self.reply(b"<!doctype html><title>page</title><h1>page</h1>", 200, [("Content-Type", "text/html")])
        elif path == "/worker.js":
            body = b"self.addEventListener('fetch', e => e.respondWith(new Response('worker')))"
            self.reply(body, 200, [("Content-Type", "text/javascript")])
        elif path == "/upgrade":
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", self.headers["Upgrade"])
            self.end_headers()
            while piece := self.rfile.read1(65536):
                self.wfile.write(piece.upper())
            self.close_connection = True
        elif path == "/unasked":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            self.close_connection = True
        else:
            self.reply(b"not here", 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_PROPFIND = do

    def websocket(self, is_chat):
        """Sends every message back, or to everybody, RFC 6455."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        chat.append(self.wfile)
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            length = head[1] & 127
            if length == 126:
                length = struct.unpack(">H", self.rfile.read(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
            if length < 126:
                size = bytes([length])
            elif length < 65536:
                size = b"\x7e" + struct.pack(">H", length)
            else:
                size = b"\x7f" + struct.pack(">Q", length)
            is_close = head[0] & 15 == 8
            for place in chat if is_chat and not is_close else [self.wfile]:
                place.write(bytes([head[0]]) + size + data)
            if is_close:
                chat.remove(self.wfile)
                return


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", int(sys.argv[1])), App)
print("ready", flush=True)
server.serve_forever()
