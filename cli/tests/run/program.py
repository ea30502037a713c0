"""A program that knows nothing of handover. What it does at its start is in the file `mode` of its directory; over its socket, one line per
connection, it does what it is told."""
import array
import os
import signal
import socket
import sys
import threading
import time

directory = sys.argv[1]
mode = open(f"{directory}/mode").read().split()


def notify(text, fds=()):
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sender.sendmsg([text.encode()], rights)


def serve(connection):
    with connection, connection.makefile("rw") as stream:
        words = stream.readline().strip().split(" ", 1)
        rest = words[1] if len(words) > 1 else ""
        answer = f"{os.getpid()} {os.environ['HANDOVER_GENERATION']}"
        if words[0] == "env":
            answer = os.environ.get(rest, "-")
        elif words[0] == "args":
            answer = " ".join(sys.argv)
        elif words[0] == "notify":
            notify(rest.replace("\\n", "\n"))
        elif words[0] == "store":
            read, write = os.pipe()
            os.write(write, b"kept")
            notify(f"FDSTORE=1\nFDNAME={rest}\nFDPOLL=0", [read])
            os.set_inheritable(write, True)
        elif words[0] == "stored":
            names = os.environ["LISTEN_FDNAMES"].split(":")
            answer = os.read(3 + names.index(rest), 4).decode() if rest in names else "-"
        elif words[0] == "child":
            child = os.fork()
            if child == 0:
                notify(rest)
                os._exit(0)
            os.waitpid(child, 0)
        elif words[0] == "family":
            # Out of the family: a session of its own, and a parent that is gone.
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execvp("sleep", ["sleep", "1000"])
                os._exit(0)
            os.wait()
        elif words[0] == "slow":
            time.sleep(float(rest))
        elif words[0] == "exit":
            os._exit(int(rest))
        elif words[0] == "barrier":
            read, write = os.pipe()
            notify("BARRIER=1", [write])
            os.close(write)
            answer = repr(os.read(read, 1))
        stream.write(answer + "\n")
        stream.flush()


if mode[0] == "exit":
    sys.exit(int(mode[1]))
if mode[0] == "hang":
    time.sleep(1000)
fd = int(sys.argv[2]) if len(sys.argv) > 2 else 3
listener = socket.socket(fileno=fd)
listener.setblocking(False)
stopping = threading.Event()
if "deaf" in mode:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
if "silent" not in mode:
    notify("READY=1\nSTATUS=at your service")
if mode[0] == "die":
    threading.Timer(float(mode[1]), lambda: os._exit(7)).start()
threads = []
if "idle" in mode:
    time.sleep(1000)
while not stopping.is_set():
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        time.sleep(0.005)
        continue
    connection.setblocking(True)
    thread = threading.Thread(target=serve, args=(connection,))
    thread.start()
    threads.append(thread)
listener.close()
for thread in threads:
    thread.join()
