"""Python's multiprocessing.shared_memory, with the protocol of peer.h. It has neither lock nor notification."""

import json
import statistics
import sys
import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

# Before 3.13 every attachment also tells a tracker process, which then destroys the segment under its other
# users. Programs that need shared memory to last switch the tracker off, and so does this one.
resource_tracker.register = resource_tracker.unregister = lambda name, rtype: None


def say(**figures):
    print(json.dumps(figures), flush=True)


def wait_for_go():
    say(ready=True)
    line = sys.stdin.readline()
    if not line:
        return False
    time.sleep(max(0, int(line) - time.monotonic_ns()) / 1e9)
    return True


def bench(ms, op):
    per, n, batch = [], 0, 1
    begin = t = time.monotonic_ns()
    cpu = time.process_time_ns()
    while t < begin + ms * 1_000_000:
        t0 = time.monotonic_ns()
        for _ in range(batch):
            op()
        t = time.monotonic_ns()
        n += batch
        per.append((t - t0) / batch)
        if t - t0 < 50_000:
            batch *= 2
            per.clear()
    say(n=n, ns=t - begin, cpu_ns=time.process_time_ns() - cpu,
        op_ns=statistics.median(per or [(t - begin) / n]))


def attach_detach(key):
    SharedMemory(key).close()


def create_destroy(key):
    s = SharedMemory(key, create=True, size=4096)
    s.close()
    s.unlink()


def main():
    op = sys.argv[2] if len(sys.argv) > 2 else "info"
    if op == "info":
        say(variant="python", name="Python shared_memory", version="Python " + sys.version.split()[0],
            ops=["hold", "attach", "create"])
        return
    args = dict(a.split("=", 1) for a in sys.argv[3:])
    key, ms = args["key"], int(args.get("ms", 100))
    held = []
    create = op == "hold" and args.get("create", "1") == "1"
    if op == "hold":
        n = int(args.get("n", 0))
        for name in [f"{key}-{i}" for i in range(n)] or [key]:
            held.append(SharedMemory(name, create=create, size=4096 if create else 0))
    elif op == "attach" and args.get("have") == "1":
        held.append(SharedMemory(key))
    if wait_for_go():
        if op == "attach":
            bench(ms, lambda: attach_detach(key))
        elif op == "create":
            bench(ms, lambda: create_destroy(key))
        else:
            say(n=len(held))
    sys.stdin.read()
    for s in held:
        s.close()
        if create:
            s.unlink()


main()
