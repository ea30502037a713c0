"""curl: one process, and so one connection, for each protocol and version of TLS. ADDRESS SECONDS"""

import subprocess
import sys

from client import Seen

address, last = sys.argv[1], int(sys.argv[2]) * 20
version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
running = []
for protocol in ["--http1.1", "--http2"]:
    for tls in ["1.2", "1.3"]:
        command = ["curl", "-sS", "--insecure", "--noproxy", "*", "--fail", protocol, f"--tlsv{tls}", "--tls-max", tls]
        command += ["--rate", "20/s", f"https://{address}/who?[1-{last}]"]
        name = f"curl {version}, HTTP/{protocol[6:]}, TLS {tls}"
        running.append((name, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)))
for name, curl in running:
    seen = Seen(name)
    out, errors = curl.communicate()
    for line in out.splitlines():
        seen.who(line)
    for line in errors.splitlines():
        seen.lost(line)
    seen.failed += last - seen.answered - seen.failed
    seen.report()
