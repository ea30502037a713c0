"""Before a worker stops it answers for a second, and says `Connection: close`, so that clients with a kept connection come no more on it."""
import os
import signal
import threading


def post_worker_init(worker):
    stop = signal.getsignal(signal.SIGTERM)

    def gently(number, frame):
        signal.signal(signal.SIGTERM, stop)
        worker.cfg.set("keepalive", 0)
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGTERM]).start()

    signal.signal(signal.SIGTERM, gently)
