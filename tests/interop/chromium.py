"""Chromium without a window: a page that polls. Its net log tells the connections. ADDRESS SECONDS"""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse

from client import Seen

address, seconds = sys.argv[1], int(sys.argv[2])
PAGE = f"""<script>
(async () => {{
  const answers = [], errors = [], end = Date.now() + {seconds} * 1000;
  while (Date.now() < end) {{
    try {{ answers.push((await (await fetch('https://{address}/who')).text()).trim()); }}
    catch (error) {{ errors.push(String(error)); }}
    await new Promise(resolve => setTimeout(resolve, 20));
  }}
  fetch('/report', {{ method: 'POST', body: JSON.stringify({{ answers, errors }}) }});
}})();
</script>"""
report: dict[str, list[str]] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode() if self.path == "/" else b"")

    def do_POST(self) -> None:
        report.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
server.timeout = 1
version = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
    log = os.path.join(directory, "net.json")
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--ignore-certificate-errors", "--disable-web-security", f"--user-data-dir={directory}/profile"]
    command += ["--disable-background-networking", f"--log-net-log={log}", f"http://127.0.0.1:{server.server_port}/"]
    chromium = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds + 60
    while not report and time.monotonic() < deadline:
        server.handle_request()
    chromium.terminate()
    chromium.wait(30)
    with open(log, encoding="utf-8") as file:
        text = file.read()
try:
    net = json.loads(text)
except json.JSONDecodeError:  # it had no time to end its log
    net = json.loads(text.rstrip().rstrip(",") + "]}")
kinds = net["constants"]["logEventTypes"]
host = urllib.parse.urlsplit(f"https://{address}").netloc
sessions, goaways = set(), 0
for event in net["events"]:
    if event["type"] == kinds["HTTP2_SESSION"] and host in event.get("params", {}).get("host", host):
        sessions.add(event["source"]["id"])
    goaways += event["type"] == kinds["HTTP2_SESSION_RECV_GOAWAY"]
seen = Seen(f"Chromium {version}, HTTP/2 ({len(sessions)} session and {goaways} GOAWAY in its net log)")
for answer in report.get("answers", []):
    seen.who(answer)
for error in report.get("errors", ["no report of the page"]):
    seen.lost(error)
seen.report()
