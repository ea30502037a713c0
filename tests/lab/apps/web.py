"""The program of the scenarios in Python: the stdlib's server on its fd, READY=1, and shutdown() on SIGTERM."""
import http.server
import os
import signal
import socket
import threading
import time

if "SERVER_STARTER_PORT" in os.environ:
    fd = int(os.environ["SERVER_STARTER_PORT"].rpartition("=")[2])
else:
    assert os.environ["LISTEN_PID"] == str(os.getpid()), "LISTEN_PID is not this process"
    fd = 3
if os.path.exists(os.environ.get("HANG", "")):
    time.sleep(1000)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False


server = Server(("", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=fd)
# Two generations wait for the same connections: who comes second must not hang in accept(2).
server.socket.setblocking(False)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
if "NOTIFY_SOCKET" in os.environ:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    notify.send(b"READY=1\nSTATUS=Python serves")
server.serve_forever(poll_interval=0.05)
server.server_close()
