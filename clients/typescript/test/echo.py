"""What listens in a sandbox in tests: answers of every length that HTTP knows, and WebSockets that echo."""
import base64, gzip, hashlib, json, struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        if self.headers.get('upgrade') == 'websocket':
            return self.websocket() if self.path.startswith('/ws') else self.answer(403, b'no')
        if self.path == '/chunked':
            self.send_response(200)
            self.send_header('transfer-encoding', 'chunked')
            self.end_headers()
            for piece in [b'one ', b'x' * 200000, b' two']:
                self.wfile.write(b'%x;e=1\r\n%s\r\n' % (len(piece), piece))
            return self.wfile.write(b'0\r\ntrailer: x\r\n\r\n')
        if self.path == '/to-its-end':
            self.send_response(200)
            self.send_header('connection', 'close')
            self.end_headers()
            return self.wfile.write(b'all of it')
        if self.path == '/broken':
            self.send_response(200)
            self.send_header('content-length', '100')
            self.end_headers()
            self.wfile.write(b'some')
            self.close_connection = True
            return
        if self.path == '/never':
            self.send_response(200)
            self.send_header('content-length', '100')
            self.end_headers()
            self.wfile.write(b'some')
            return self.rfile.read(1)
        if self.path == '/nonsense':
            self.wfile.write(b'hello\r\n\r\n')
            return
        if self.path == '/205':
            return self.answer(205, b'')
        if self.path == '/packed':
            return self.answer(200, gzip.compress(b'unpacked'), {'content-encoding': 'gzip'})
        if self.path == '/redirect':
            return self.answer(302, b'', {'location': '/elsewhere'})
        if self.path.startswith('/to?'):
            return self.answer(302, b'', {'location': self.path[4:], 'content-location': self.path[4:]})
        if self.path == '/who':
            return self.answer(200, json.dumps([self.headers.get(name) for name in ['origin', 'referer', 'cookie']]).encode())
        self.answer(200, json.dumps([self.command, self.path, self.headers['host'], self.headers.get('x-mine'), self.read()]).encode(), {'set-cookie': 'a=1'})

    do_POST = do_PUT = do_HEAD = do_GET

    def read(self):
        return self.rfile.read(int(self.headers.get('content-length', 0))).decode()

    def answer(self, status, body, headers={}):
        self.send_response(status)
        for name, value in {'content-length': len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def websocket(self):
        key = self.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        self.send_header('connection', 'Upgrade')
        self.send_header('upgrade', 'websocket')
        self.send_header('sec-websocket-accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            first, second = self.rfile.read(2)
            length = second & 127
            if length == 126:
                length = struct.unpack('>H', self.rfile.read(2))[0]
            elif length == 127:
                length = struct.unpack('>Q', self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[at & 3] for at, byte in enumerate(self.rfile.read(length)))
            size = bytes([length]) if length < 126 else bytes([126]) + struct.pack('>H', length) if length < 65536 else bytes([127]) + struct.pack('>Q', length)
            self.wfile.write(bytes([first]) + size + data)
            if first & 15 == 8:
                return


ThreadingHTTPServer(('127.0.0.1', 3000), Echo).serve_forever()
