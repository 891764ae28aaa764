"""The cases of `compare`: what each asks for, how it is driven and measured, and the goals that we set ourselves."""

import dataclasses
import json
import subprocess
import time

from lab import Trouble, cpu_seconds, pin, resident_bytes
from stage import SMALL, ask, body_bytes

# Host is the twentieth.
BROWSER_FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.7", "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cookie": "session=5f2c8a7be0d94b7c9f3e; theme=dark; consent=1; _ga=GA1.2.1234567890.1700000000",
    "Referer": "https://www.example.com/section/page?id=42", "Cache-Control": "max-age=0", "DNT": "1", "Priority": "u=0, i",
    "Sec-Ch-Ua": '"Chromium";v="126", "Not.A/Brand";v="8"', "Sec-Ch-Ua-Mobile": "?0", "Sec-Ch-Ua-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-User": "?1",
    "Upgrade-Insecure-Requests": "1", "X-Request-Id": "3f0c2d1e-8a55-4b0e-9a6f-6f9d2a1b7c44",
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
CHUNKS = b"0123456789abcdef" * 32 * 8

# Printed by wrk after a run, because its own text rounds the latencies.
WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("REPORT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.timeout + e.status))
end
"""


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    title: str
    # The figures that are compared, each with the most that it may be of nginx's, of HAProxy's, or of the `better` one's.
    goals: dict
    tool: str = "wrk"
    listener: str = "web"
    path: str = "/"
    connections: int = 64
    workers: int = 1
    method: str = "GET"
    fields: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    answer: bytes = SMALL.encode()
    answer_fields: int = 0
    rounds: int = 5
    # The system calls that roundsman may make per request, without those that wait.
    calls_max: float = 0
    # Every proxy writes a line for each request: nginx and HAProxy as they do by default, roundsman in this format.
    log: str = ""


# Two reads, two writes, a look at the kept connection. A connection that is opened now and then has a share of its calls.
CALLS = 5.2


def cpu(nginx, haproxy):
    return {"cpu_us": {"nginx": nginx, "haproxy": haproxy}}


CASES = (
    Case("small", "small keep-alive GET", cpu(0.90, 0.80), calls_max=CALLS),
    Case("fields", "20 request fields, 15 response fields", cpu(0.90, 0.90), path="/fields", fields=BROWSER_FIELDS,
         answer_fields=15, calls_max=CALLS),
    Case("body-10k", "10 KiB body", cpu(1.0, 0.95), path="/body-10k", answer=body_bytes(10 * 1024), calls_max=CALLS),
    Case("body-1m", "1 MiB body", cpu(1.0, 1.0), path="/body-1m", answer=body_bytes(1024 * 1024), connections=16),
    Case("post", "POST of 1 KiB", cpu(0.95, 0.90), method="POST", body=b"0123456789abcdef" * 64,
         calls_max=CALLS),
    Case("fresh", "new connection per request", cpu(1.0, 1.0), tool="fresh"),
    Case("chunks", "chunked answer, 8 chunks, each in a write of its own", cpu(1.0, 0.9), listener="app", path="/chunks",
         answer=CHUNKS),
    Case("chunks-at-once", "chunked answer, 8 chunks in one write", cpu(1.0, 0.9), listener="app", path="/chunks-at-once",
         answer=CHUNKS, calls_max=CALLS),
    Case("chunks-apart", "chunked answer, 8 chunks 2 ms apart, none held back", cpu(1.0, 0.9), listener="apart",
         path="/chunks-apart", answer=CHUNKS),
    Case("websocket", "WebSocket, 1 KiB echo", cpu(1.0, 1.0), tool="echo", listener="tunnel", path="/echo"),
    Case("rate", "constant rate at 30 % load", {figure: {"better": 1.1} for figure in ("p50_us", "p99_us", "p999_us")},
         tool="rate", rounds=10),
    Case("idle", "5,000 idle client connections", {"kib": {"haproxy": 1.0}}, tool="idle", connections=5_000, rounds=3),
    Case("workers", "small keep-alive GET, two workers", cpu(0.90, 0.90), connections=256, workers=2),
    Case("log", "small keep-alive GET, access log in Apache's combined format", cpu(0.95, 0.95), log="combined", calls_max=CALLS),
    Case("log-json", "the same, the log of roundsman in JSON", cpu(0.95, 0.95), log="json", calls_max=CALLS),
)

# name: (unit, how to print it)
FIGURES = {"cpu_us": ("CPU us/request", "{:.2f}"), "p50_us": ("p50 us", "{:.0f}"), "p99_us": ("p99 us", "{:.0f}"),
           "p999_us": ("p99.9 us", "{:.0f}"), "kib": ("KiB/connection", "{:.2f}")}


def prove(stage, name, case):
    """One request, of which the response is compared with what the backend sends: a proxy that answers wrongly is fast."""
    if case.tool == "echo":
        return  # The load generator compares each message.
    status, fields, body = ask(stage.ports[name][case.listener], case.method, case.path, case.fields, case.body or None)
    if (status, body) != (200, case.answer) or fields < case.answer_fields:
        raise Trouble(f"{name} answers {case.path} with {status}, {fields} fields and {len(body)} bytes of body;"
                      f" expected 200, at least {case.answer_fields} and these {len(case.answer)} bytes")


class Run:
    """How long, and how many: `--smoke` makes all of it short."""

    def __init__(self, options):
        self.seconds = 0.3 if options.smoke else options.seconds
        self.warm_up = 0 if options.smoke else 1
        self.requests = 600 if options.smoke else options.requests
        self.idle = 200 if options.smoke else None
        self.settle = 0.2 if options.smoke else 3


def measure(stage, name, case, run, rate):
    """One measured run against one proxy (or `direct`), after a short one that opens connections and warms caches."""
    process = stage.processes.get(name)
    if case.tool == "idle":
        return idle(stage, name, case, run, process)
    if run.warm_up:
        drive(stage, name, case, run, rate, run.warm_up)
    accepted, before = stage.backend_connections(), cpu_seconds(process)
    result = drive(stage, name, case, run, rate, run.seconds)
    spent = cpu_seconds(process) - before
    result["backend_connections"] = stage.backend_connections() - accepted
    result["per_second"] = result["requests"] / result["seconds"]
    if process and result["requests"]:
        result["cpu_us"] = spent * 1e6 / result["requests"]
        result["core_share"] = spent / result["seconds"]
    return result


def drive(stage, name, case, run, rate, seconds, prefix=()):
    port = stage.ports[name][case.listener]
    if case.tool == "wrk":
        return wrk(stage, port, case, max(1, round(seconds)), prefix)
    words = [case.tool, "--to", f"127.0.0.1:{port}", "--path", case.path, "--connections", str(case.connections)]
    if case.tool == "rate":
        requests = run.requests if seconds == run.seconds else max(case.connections, round(rate * seconds))
        words += ["--rate", str(rate), "--requests", str(requests)]
    else:
        words += ["--seconds", str(seconds)]
    done = subprocess.run([*prefix, str(stage.binaries["load"]), *words], capture_output=True, text=True, timeout=300,
                          start_new_session=True, preexec_fn=pin(stage.load_cores))
    if done.returncode:
        raise Trouble(f"load {' '.join(words)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def wrk(stage, port, case, seconds, prefix=()):
    script = stage.directory / f"{case.name}.lua"
    # Without a `request` function wrk formats the request once.
    lines = [f"wrk.method = {json.dumps(case.method)}", f"wrk.body = {json.dumps(case.body.decode())}" if case.body else ""]
    lines += [f"wrk.headers[{json.dumps(field)}] = {json.dumps(value)}" for field, value in case.fields.items()]
    script.write_text("\n".join(lines) + WRK_REPORT)
    command = [*prefix, "wrk", f"-t{case.workers}", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "20s",
               "-s", str(script), f"http://127.0.0.1:{port}{case.path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60,
                          start_new_session=True, preexec_fn=pin(stage.load_cores))
    words = [text for text in done.stdout.splitlines() if text.startswith("REPORT ")]
    if not words:
        raise Trouble(f"wrk said: {done.stdout}{done.stderr}")
    requests, duration_us, p50_us, p99_us, errors = (int(word) for word in words[0].split()[1:])
    return {"requests": requests, "errors": errors, "seconds": duration_us / 1e6, "p50_us": p50_us, "p99_us": p99_us}


def idle(stage, name, case, run, process):
    """Growth of the resident memory by connections that have had one response and wait for nothing."""
    port, connections = stage.ports[name][case.listener], run.idle or case.connections
    # What the first requests need once belongs to no connection.
    for _ in range(100):
        ask(port, "GET", case.path)
    before = resident_bytes(process) if process else 0
    command = [str(stage.binaries["load"]), "idle", "--to", f"127.0.0.1:{port}", "--path", case.path, "--connections",
               str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          start_new_session=True, preexec_fn=pin(stage.load_cores)) as load:
        try:
            if load.stdout.readline() != "READY\n":
                raise Trouble(f"no {connections} connections to {name}")
            time.sleep(run.settle)
            grown = resident_bytes(process) - before if process else 0
            load.stdin.close()
            result = json.loads(load.stdout.readline())
        finally:
            load.kill()
    if result["requests"] != connections:
        raise Trouble(f"{name} kept {result['requests']} of {connections} idle connections open: {result['fault']}")
    return {**result, "kib": grown / 1024 / connections}
