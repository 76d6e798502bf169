"""A git server for tests, inside the sandbox it serves: smart HTTP by git http-backend.

    python3 git.py DIRECTORY     serves DIRECTORY/repos; its port comes to DIRECTORY/port

The first part of a path says how the rest is served; what is held back is refused once
DIRECTORY/released is there; DIRECTORY/secret has the password and the token.
What arrives as credentials is written to DIRECTORY/seen, with the host it was meant for.
"""

import base64
import http.server
import itertools
import os
import subprocess
import sys
import time

HOME = sys.argv[1]
SECRET = open(HOME + "/secret").read().strip()
BEARER = "Bearer " + SECRET
BASIC = "Basic " + base64.b64encode(("user:" + SECRET).encode()).decode()


def packet(data):
    return b"%04x" % (len(data) + 4) + data


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while not chunks or chunks[-1]:
            chunks.append(self.rfile.read(int(self.rfile.readline(), 16)))
            self.rfile.readline()
        return b"".join(chunks)

    def serve(self):
        body = self.body()
        path, _, query = self.path.partition("?")
        _, way, rest = path.split("/", 2)
        given = self.headers.get("Authorization")
        with open(HOME + "/seen", "a") as seen:
            print(self.headers.get("Host"), way, given, self.headers.get("X-Token"), file=seen)
        # The same program under another name: another host, to which credentials are not shown.
        elsewhere = f"http://localhost:{self.server.server_address[1]}/private/{rest}?{query}"
        if way in ("private", "lure", "hold") and given not in (BASIC, BEARER):
            text = ("you said " + str(given)).encode()
            self.answer(401, [("WWW-Authenticate", "Basic realm=x")], text)
        elif way == "bearer" and given != BEARER:
            self.answer(401, [("WWW-Authenticate", "Bearer")])
        elif way == "status":
            self.answer(int(rest.split("/")[0]))
        elif way in ("redirect", "lure"):
            self.answer(302, [("Location", elsewhere)])
        elif way == "silent" or (way in ("stalled", "hold") and self.command == "POST"):
            open(HOME + "/waiting", "w").close()
            while not os.path.exists(HOME + "/released"):
                time.sleep(0.01)
            self.answer(500)
        elif way == "refs":
            start = b"001e# service=git-upload-pack\n0000"
            line = b"1" * 40 + b" refs/heads/%08d\n"
            self.endless("advertisement", start, lambda n: packet(line % n))
        elif way == "talk" and b"command=fetch" in body:
            start = packet(b"packfile\n")
            self.endless("result", start, lambda n: packet(b"\x02Counting objects: %d\r" % n))
        else:
            self.backend(rest, query, body)

    def endless(self, what, start, make):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-git-upload-pack-" + what)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(start)
        for number in itertools.count(0, 1000):
            self.wfile.write(b"".join(map(make, range(number, number + 1000))))

    def backend(self, path, query, body):
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": HOME + "/repos",
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": "/" + path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        run = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE)
        head, _, rest = run.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = [int(value.split()[0]) for name, value in headers if name == "Status"]
        self.answer((status or [200])[0], [h for h in headers if h[0] != "Status"], rest)

    do_GET = do_POST = serve


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(HOME + "/port.new", "w") as port:
    print(server.server_address[1], file=port)
os.rename(HOME + "/port.new", HOME + "/port")
server.serve_forever()
