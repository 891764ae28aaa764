"""What `compare` starts for one case: backends, and the three proxies in front of them with configurations that do the same.

Every proxy has a listener per kind of backend: `web` (three addresses of one nginx), `app` (the origin of benches/load),
`tunnel` (the same origin, upgrades passed on) and `apart` (the same origin, nothing held back). The last three differ only for
nginx, which needs other settings for each.
"""

import hashlib
import http.client
import os
import resource
import signal
import time

from lab import Trouble, free_port, nginx_file, start, stop

PROXIES = ("roundsman", "nginx", "haproxy")
LISTENERS = ("web", "app", "tunnel", "apart")
SMALL = "hello from one of three backends.\n"
# Four more come from nginx itself: Server, Date, Content-Type and Content-Length.
ADDED_FIELDS = {
    "Cache-Control": "private, max-age=0, must-revalidate", "Vary": "Accept-Encoding, Cookie",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains", "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'",
    "Set-Cookie": "session=5f2c8a7be0d94b7c9f3e; Path=/; HttpOnly; SameSite=Lax",
    "X-Request-Id": "3f0c2d1e-8a55-4b0e-9a6f-6f9d2a1b7c44", "Server-Timing": "app;dur=3.2, db;dur=1.1",
    "Content-Language": "en-GB",
}

BACKENDS = """
  sendfile on;
  tcp_nopush on;
  open_file_cache max=16;
  open_file_cache_valid 1h;
  server {{ listen 127.0.0.1:{status}; location / {{ stub_status; }} }}
"""
BACKEND = """
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    root {dir}/files;
    location / {{ return 200 "{small}"; }}
    location /fields {{ return 200 "{small}"; {fields} }}
    location /body- {{ }}
  }}
"""

NGINX_UPSTREAMS = """
  upstream web {{ {web} keepalive 512; keepalive_requests 1000000000; }}
  upstream app {{ {app} keepalive 512; keepalive_requests 1000000000; }}
"""
NGINX_LISTENER = """
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    {log}
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      {more}
    }}
  }}
"""
NGINX_MORE = {
    "tunnel": 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
    # With buffering nginx holds a chunk back until its buffer is full or the response has ended.
    "apart": 'proxy_set_header Connection ""; proxy_buffering off;',
}

HAPROXY = """
global
  nbthread {workers}
  maxconn {maxconn}
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  timeout tunnel 1h
"""
HAPROXY_LISTENER = """
frontend {name}
  bind 127.0.0.1:{port} backlog 8192
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend {backend}
"""
HAPROXY_BACKEND = """
backend {name}
  balance roundrobin
{servers}
"""

ROUNDSMAN = """
[runtime]
threads = {workers}
{lane}

[admin]
address = "127.0.0.1:{admin}"
"""
ROUNDSMAN_LOG = """
[access_log]
to = "{path}"
format = "{format}"
"""
ROUNDSMAN_LISTENER = """
[listeners.{name}]
address = "127.0.0.1:{port}"
pool = "{pool}"
"""
ROUNDSMAN_POOL = """
[pools.{name}]
upstreams = [{servers}]
health = {{ type = "tcp", interval = "2s", fast_interval = "50ms" }}
"""


class Stage:
    """The servers of one case. Use it in a `with` statement: they end with it."""

    def __init__(self, options, binaries, directory, workers=1, log=""):
        self.options, self.binaries, self.directory, self.workers = options, binaries, directory, workers
        self.log = log
        self.started = []
        self.proxy_cores, self.load_cores = places(workers)
        self.processes, self.ports = {}, {}

    def __enter__(self):
        try:
            self.start_backends()
            for name in self.options.only:
                self.start_proxy(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second signal must not interrupt this; it takes a few seconds at most.
        before = {sig: signal.signal(sig, signal.SIG_IGN) for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        stop(self.started)
        for sig, handler in before.items():
            signal.signal(sig, handler)

    def start_backends(self):
        (self.directory / "files").mkdir(exist_ok=True)
        for name, size in (("10k", 10 * 1024), ("1m", 1024 * 1024)):
            (self.directory / "files" / f"body-{name}").write_bytes(body_bytes(size))
        self.web, self.status, self.app = [free_port() for _ in range(3)], free_port(), free_port()
        small = SMALL.replace("\n", "\\n")
        fields = " ".join(f'add_header {name} "{value}";' for name, value in ADDED_FIELDS.items())
        servers = "".join(BACKEND.format(port=port, dir=self.directory, small=small, fields=fields) for port in self.web)
        path = nginx_file(self.directory, "backends", BACKENDS.format(status=self.status) + servers, connections=16_384)
        self.start("backends", ["nginx", "-p", str(self.directory), "-c", str(path)], self.load_cores)
        self.start("origin", [str(self.binaries["load"]), "origin", "--listen", f"127.0.0.1:{self.app}"], self.load_cores)
        # Without a proxy: shows what the load generator and the backends can do.
        self.ports["direct"] = {"web": self.web[0], "app": self.app, "tunnel": self.app, "apart": self.app}
        for name in ("web", "app"):
            self.wait_until_answering("direct", name, self.processes["backends" if name == "web" else "origin"])

    def start_proxy(self, name):
        ports = dict(zip(LISTENERS, (free_port() for _ in LISTENERS)))
        self.ports[name] = ports
        command = {"nginx": self.nginx, "haproxy": self.haproxy, "roundsman": self.roundsman}[name](ports)
        self.start(name, command, self.proxy_cores)
        for listener in LISTENERS:
            self.wait_until_answering(name, listener, self.processes[name])

    def restart_proxies(self):
        proxies = [self.processes[name] for name in self.options.only]
        stop(proxies)
        self.started = [process for process in self.started if process not in proxies]
        for name in self.options.only:
            self.start_proxy(name)

    def start(self, name, command, on_cores):
        self.processes[name] = start(command, self.directory, name, on_cores, self.started)

    def nginx(self, ports):
        addresses = lambda listening: " ".join(f"server 127.0.0.1:{port};" for port in listening)
        text = NGINX_UPSTREAMS.format(web=addresses(self.web), app=addresses([self.app]))
        # Over the `off` of all servers.
        log = f"access_log {self.directory}/nginx-access.log combined;" if self.log else ""
        for name, port in ports.items():
            more = NGINX_MORE.get(name, 'proxy_set_header Connection "";')
            text += NGINX_LISTENER.format(port=port, upstream="web" if name == "web" else "app", more=more, log=log)
        path = nginx_file(self.directory, "nginx", text, workers=self.workers, connections=16_384)
        return ["nginx", "-p", str(self.directory), "-c", str(path)]

    def haproxy(self, ports):
        # HAProxy does not start where it may not open two files per connection.
        maxconn = min(7_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 100)
        text = HAPROXY.format(workers=self.workers, maxconn=maxconn)
        if self.log:
            # Its output is a file.
            text += "  log stdout format raw local0\n  option httplog\n"
        for name, port in ports.items():
            text += HAPROXY_LISTENER.format(name=name, port=port, backend="to_web" if name == "web" else "to_app")
        for name, addresses in (("to_web", self.web), ("to_app", [self.app])):
            servers = "\n".join(f"  server s{i} 127.0.0.1:{port} check" for i, port in enumerate(addresses))
            text += HAPROXY_BACKEND.format(name=name, servers=servers)
        path = self.directory / "haproxy.cfg"
        path.write_text(text)
        return ["haproxy", "-db", "-f", str(path)]

    def roundsman(self, ports):
        lane = f'lane = "{self.options.lane}"' if self.options.lane else ""
        text = ROUNDSMAN.format(workers=self.workers, lane=lane, admin=free_port())
        if self.log:
            text += ROUNDSMAN_LOG.format(path=self.directory / "roundsman-access.log", format=self.log)
        for name, port in ports.items():
            text += ROUNDSMAN_LISTENER.format(name=name, port=port, pool="web" if name == "web" else "app")
        for name, addresses in (("web", self.web), ("app", [self.app])):
            servers = ", ".join(f'"127.0.0.1:{port}"' for port in addresses)
            text += ROUNDSMAN_POOL.format(name=name, servers=servers)
        path = self.directory / "roundsman.toml"
        path.write_text(text)
        return [str(self.binaries["roundsman"]), "run", "--config", str(path)]

    def wait_until_answering(self, name, listener, process):
        """A proxy answers with 200 once it has found a backend."""
        deadline, last = time.monotonic() + 15, "nothing"
        while time.monotonic() < deadline and process.poll() is None:
            try:
                status, _, _ = ask(self.ports[name][listener], "GET", "/")
                if status == 200:
                    return
                last = status
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            time.sleep(0.02)
        logs = [self.directory / f"{file}.out" for file in ("backends", "origin", name)]
        log = "".join(path.read_text(errors="replace")[-2000:] for path in logs if path.exists())
        raise Trouble(f"{name} does not answer on its listener `{listener}`: {last}\n{log}")

    def backend_connections(self):
        """How many connections the backends have accepted so far, without the one that asks."""
        _, _, body = ask(self.status, "GET", "/")
        self.asked = getattr(self, "asked", 0) + 1
        return int(body.decode().split("requests")[1].split()[0]) - self.asked


def places(workers):
    """The cores of the proxies and those of everything else. With too few cores for that, both get all of them."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 * workers:
        return set(usable), set(usable)
    return set(usable[:workers]), set(usable[workers:])


def apart(workers):
    proxy_cores, load_cores = places(workers)
    return not proxy_cores & load_cores


def ask(port, method, path, fields=None, body=None):
    """One request on a new connection: status, number of response fields, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body=body, headers=fields or {})
        response = connection.getresponse()
        return response.status, len(response.getheaders()), response.read()
    finally:
        connection.close()


def body_bytes(size):
    """Bytes that no proxy can confuse with other bytes of the same length."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(32))
    return (block * (size // len(block) + 1))[:size]
