"""System calls per request, by name. Counts with `perf stat` on the kernel's tracepoints, which hardly slows the process
down; where the kernel does not allow that, with `strace -c`, which slows it down several times and so makes it find more work at
each wake-up: fewer calls of epoll per request than in use."""

import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from cases import drive
from lab import family, say

# What the three proxies call for requests. Tracing all of the few hundred names takes half a minute to begin and to end, so
# the rest is only counted together.
NAMES = """accept4 bind brk clock_gettime clock_nanosleep close connect epoll_ctl epoll_pwait epoll_wait fcntl futex getpeername
getpid getsockname getsockopt ioctl madvise mmap mprotect munmap nanosleep newfstat poll read readv recvfrom recvmsg sched_yield sendfile64
sendmsg sendto setsockopt shutdown socket splice timerfd_settime write writev""".split()
EVERY = "raw_syscalls:sys_enter"
TRACING = Path("/sys/kernel/tracing/events/syscalls")
# A name that is in fewer requests than this is the warm-up of a connection, or the checker.
SHARE_MIN = 0.005


def events():
    """Not every kernel has every name."""
    return ",".join([EVERY, *(f"syscalls:sys_enter_{name}" for name in NAMES if (TRACING / f"sys_enter_{name}").exists())])


def tool():
    """`perf`, `strace`, or None with the reason printed."""
    if shutil.which("perf"):
        done = subprocess.run(["perf", "stat", "-x,", "-e", events(), "true"], capture_output=True, text=True)
        if done.returncode == 0 and "not supported" not in done.stderr and EVERY in done.stderr:
            return "perf"
    if shutil.which("strace") and may_attach():
        return "strace"
    say("SKIPPED: system calls. Counting them needs perf (Debian: linux-perf), as root or with kernel.perf_event_paranoid=-1,"
        " or strace (Debian: strace), as root or with kernel.yama.ptrace_scope=0.")
    return None


def may_attach():
    """Whether this machine lets strace look at a process that it has not started."""
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        tracer = subprocess.Popen(["strace", "-p", str(sleeper.pid)], stderr=subprocess.PIPE, text=True)
        attached = "attached" in tracer.stderr.readline()
        tracer.kill()
        tracer.wait(timeout=10)
        return attached
    finally:
        sleeper.kill()
        sleeper.wait()


def count(with_tool, stage, name, case, run, rate):
    """Calls per request by name, the most frequent first; and how many requests they were counted over."""
    drive(stage, name, case, run, rate, 1)
    pids = ",".join(str(pid) for pid in family(stage.processes[name]))
    counter = with_perf if with_tool == "perf" else with_strace
    result, calls = counter(pids, lambda prefix=(): drive(stage, name, case, run, rate, run.seconds, prefix))
    shares = {call: number / result["requests"] for call, number in calls.items()} if result["requests"] else {}
    kept = {call: share for call, share in sorted(shares.items(), key=lambda pair: -pair[1]) if share >= SHARE_MIN}
    return kept, result


def with_perf(pids, load):
    with tempfile.NamedTemporaryFile(prefix="roundsman-perf-") as output:
        # perf counts in these processes for as long as the command runs that follows.
        result = load(["perf", "stat", "-x,", "-o", output.name, "-e", events(), "-p", pids, "--"])
        lines = [line.split(",") for line in Path(output.name).read_text().splitlines()]
    calls = {words[2].split("sys_enter_")[-1]: int(words[0]) for words in lines if len(words) > 2 and words[0].isdigit()}
    total = calls.pop(EVERY)
    return result, {**calls, "others": total - sum(calls.values())}


def with_strace(pids, load):
    with tempfile.NamedTemporaryFile(prefix="roundsman-strace-") as output:
        attach = [word for pid in pids.split(",") for word in ("-p", pid)]
        tracer = subprocess.Popen(["strace", "-c", "-f", "-o", output.name, *attach], stderr=subprocess.PIPE, text=True)
        try:
            for _ in pids.split(","):
                tracer.stderr.readline()
            # It reports further threads, too; a full pipe would stop it.
            threading.Thread(target=tracer.stderr.read, daemon=True).start()
            result = load()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(timeout=30)
        text = Path(output.name).read_text()
    rows = [line.split() for line in text.splitlines() if re.match(r"\s*\d+[.,]\d+\s", line)]
    return result, {words[-1]: int(words[3]) for words in rows if words[-1] != "total"}
