"""Shared by the comparisons: starts servers on their own core, always stops them, and measures their CPU time."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk"}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

NGINX_COMMON = """
daemon off;
worker_processes 1;
pid {dir}/{name}.pid;
error_log {dir}/{name}.log warn;
{user}
events {{ worker_connections 4096; }}
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


def cpu_seconds(process):
    """User and system time of a process and its descendants, so that nginx's worker counts and not only its master."""
    if process is None:
        return 0.0
    parents, times = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            times[int(entry.name)] = int(fields[11]) + int(fields[12])
    if process.pid not in times or process.poll() is not None:
        raise Trouble(f"{process.args[0]} has ended")
    family, ticks = {process.pid}, 0
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            break
        family |= more
    ticks = sum(times[pid] for pid in family)
    return ticks / TICKS_PER_SECOND


def nginx_file(directory, name, http_block):
    path = directory / f"{name}.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    path.write_text(NGINX_COMMON.format(dir=directory, name=name, user=user, http=http_block))
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
    return (lambda: os.sched_setaffinity(0, {core})) if core is not None else None


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


def machine(proxy_core, load_core):
    model = next((text.split(":", 1)[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines()
                  if text.startswith("model name")), platform.machine())
    place = "one core for everything" if proxy_core is None else f"proxy on core {proxy_core}, rest on core {load_core}"
    return f"machine: {model}, {os.cpu_count()} cores, Linux {platform.release()}; {place}"


def say(text):
    print(text, flush=True)
