"""gRPC for Python: unary calls on one channel. ADDRESS SECONDS"""

import sys
import threading
import time

import grpc

from client import Seen, seconds

seen, lock = Seen(f"grpcio {grpc.__version__}, 10 callers"), threading.Lock()
end = seconds()
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.use_local_subchannel_pool", 1)])
connected = []
channel.subscribe(lambda state: state == grpc.ChannelConnectivity.READY and connected.append(state), try_to_connect=True)
# a message with the text "hi" in its first field, and back
say = channel.unary_unary("/handover.example.Echo/Say", lambda text: b"\n\x02" + text, lambda answer: answer[2:].decode())
say(b"hi", wait_for_ready=True, timeout=10)


def call() -> None:
    while time.monotonic() < end:
        try:
            answer = say(b"hi", timeout=10)
            with lock:
                seen.pids.add(answer.split()[0])
                seen.answered += 1
        except grpc.RpcError as error:
            with lock:
                seen.lost(error)
        time.sleep(0.005)


callers = [threading.Thread(target=call) for _ in range(10)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
seen.connections = {str(number) for number in range(len(connected))}
seen.report()
