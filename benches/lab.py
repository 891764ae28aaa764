"""Shared by the comparisons: starts servers on their own cores, always stops them, and measures their CPU time and memory."""

import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk"}
FILES = 40_000

NGINX_COMMON = """
daemon off;
worker_processes {workers};
pid {dir}/{name}.pid;
error_log {dir}/{name}.log warn;
{user}
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {dir}/{name}-body; proxy_temp_path {dir}/{name}-proxy; fastcgi_temp_path {dir}/{name}-f;
  uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s;
  {http}
}}
"""


class Trouble(Exception):
    """Ends the run with one sentence."""


def family(process):
    """The ids of a process and its descendants, so that nginx's workers count and not only its master."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    if process.pid not in parents or process.poll() is not None:
        raise Trouble(f"{process.args[0]} has ended")
    found = {process.pid}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def cpu_seconds(process):
    """User and system time of a process and its descendants, with all their threads. It is the sum that /proc shows in steps
    of 10 ms, read in nanoseconds: clock_getcpuclockid(3) makes the id of a process's clock like this."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in family(process)) if process else 0.0


def resident_bytes(process):
    """Resident memory of a process and its descendants."""
    total = 0
    for pid in family(process):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total * 1024


def allow_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def nginx_file(directory, name, http_block, workers=1, connections=4096):
    path = directory / f"{name}.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    path.write_text(NGINX_COMMON.format(dir=directory, name=name, user=user, http=http_block, workers=workers,
                                        connections=connections))
    return path


def start(command, directory, name, core, started):
    with open(directory / f"{name}.out", "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True, preexec_fn=pin(core))
    started.append(process)
    return process


def stop(started):
    for sig in (signal.SIGTERM, signal.SIGKILL):
        for process in started:
            try:
                os.killpg(process.pid, sig)
            except ProcessLookupError:
                pass
        for process in started:
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cores():
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def pin(core):
    """Runs in a child before its program: restricts it to a core, or to a set of them. `None` leaves it free. A new session
    gets the priority that this program was started with: Linux compares sessions before it compares their processes."""
    allowed = core if isinstance(core, set) or core is None else {core}

    def prepare():
        if allowed:
            os.sched_setaffinity(0, allowed)
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        if nice and os.getsid(0) == os.getpid() and os.path.exists("/proc/self/autogroup"):
            with open("/proc/self/autogroup", "w") as file:
                file.write(str(nice))

    return prepare


def ensure_installed(programs):
    # Debian keeps servers in /usr/sbin, which is not in every user's PATH.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [PACKAGES[program] for program in programs if not shutil.which(program)]
    if not missing:
        return
    say(f"installing from the distribution: {' '.join(missing)}")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    if not shutil.which("apt-get") or (prefix and not shutil.which("sudo")):
        raise Trouble(f"please install {' '.join(missing)}")
    subprocess.run([*prefix, "apt-get", "update", "-qq"], check=True)
    subprocess.run([*prefix, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)


def build(profile):
    say(f"building roundsman with profile {profile} (the first time this takes some minutes)")
    command = ["cargo", "build", "--profile", profile, "--bin", "roundsman", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    return next(m["executable"] for m in reversed(messages) if m.get("executable"))


def build_load(directory):
    """The load generator has no dependencies: rustc alone builds it, in a few seconds."""
    if not shutil.which("rustc"):
        raise Trouble("rustc is missing: install Rust 1.88 or newer, for example from https://rustup.rs")
    path, source = directory / "load", REPOSITORY / "benches" / "load" / "main.rs"
    subprocess.run(["rustc", "--edition", "2024", "-O", "-o", str(path), str(source)], cwd=REPOSITORY, check=True,
                   start_new_session=True, preexec_fn=pin(None))
    return path


def machine(proxy_core, load_core):
    model = next((text.split(":", 1)[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines()
                  if text.startswith("model name")), platform.machine())
    place = "one core for everything" if proxy_core is None else f"proxy on core {proxy_core}, rest on core {load_core}"
    return f"machine: {model}, {os.cpu_count()} cores, Linux {platform.release()}; {place}"


def say(text):
    print(text, flush=True)
