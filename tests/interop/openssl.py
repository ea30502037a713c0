"""openssl s_client: HTTP/1.1 by hand, with key updates in TLS 1.3. ADDRESS SECONDS"""

import subprocess
import sys
import time

from client import Seen, seconds

version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout.split()[1]
for tls in ["1_2", "1_3"]:
    end = seconds()
    seen = Seen(f"openssl s_client {version}, TLS {tls.replace('_', '.')}")
    command = ["openssl", "s_client", "-connect", sys.argv[1], f"-tls{tls}", "-crlf", "-servername", "localhost"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    while time.monotonic() < end:
        if tls == "1_3" and seen.answered % 10 == 5:
            process.stdin.write("K\n")  # both keys change
            process.stdin.flush()
            while process.stderr.readline().strip() != "KEYUPDATE":
                pass  # what comes at the same time as the command it would drop
        process.stdin.write("GET /who HTTP/1.1\nHost: localhost\n\n")
        process.stdin.flush()
        # after the empty line behind the head; the body ends with one of its own
        for line in process.stdout:
            if line.startswith("HTTP/1.1 "):
                while process.stdout.readline().strip():
                    pass
                seen.who(process.stdout.readline())
                break
        else:
            seen.lost("closed")
            break
        time.sleep(0.05)
    process.kill()
    seen.report()
