"""A backend that is a process of its own, so that it can be killed, stopped and continued as any other.

python3 backend.py PORT LOG: prints "ready" once it listens on 127.0.0.1:PORT, and appends a line to LOG for each request as soon
as its head has come: nanoseconds since 1970, method, path. Checks (/healthz) are not written. It reads orders from its standard
input, a line each, and prints "done" after each:

health 503      the status of /healthz
traffic good    answers all other requests; or a status; or "reset": resets their connections
hang            accepts connections, and reads and answers nothing, /healthz included; "go" ends that

The answer to /n/17 is "17 " a hundred times: with a Content-Length if the number is even, in two chunks if it is odd. /drip/17
has the same in ten pieces over 200 ms; /slow/17 has it after 2 s; /big has 16 MiB. SIGTERM is a graceful stop.
"""

import asyncio
import logging
import os
import signal
import struct
import socket
import sys
import time

# A connection that the other side has closed is no news.
logging.getLogger("asyncio").setLevel(logging.ERROR)
health, traffic, hanging = 200, "good", False
connections = set()
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def head(status, framing):
    return f"HTTP/1.1 {status} X\r\n{framing}\r\n\r\n".encode()


def sized(status, body):
    return head(status, f"Content-Length: {len(body)}") + body


def chunk(body):
    return b"%x\r\n%s\r\n" % (len(body), body)


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer, self.busy, self.noted = transport, b"", False, False
        self.writable = asyncio.Event()
        self.writable.set()
        connections.add(self)
        if hanging:
            transport.pause_reading()

    def connection_lost(self, error):
        connections.discard(self)
        self.writable.set()

    def data_received(self, data):
        self.buffer += data
        self.take()

    def take(self):
        while not self.busy and not hanging:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ", 2)
            if not self.noted and path != "/healthz":
                os.write(log, f"{time.time_ns()} {method} {path}\n".encode())
            self.noted = True
            fields = [line.lower() for line in lines[1:]]
            length = next((int(f[15:]) for f in fields if f.startswith("content-length:")), 0)
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            self.noted = False
            self.answer(path)

    def answer(self, path):
        if path == "/healthz":
            self.transport.write(sized(health, b"ok"))
        elif traffic == "reset":
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        elif traffic != "good":
            self.transport.write(sized(int(traffic), b"as ordered"))
        else:
            self.busy = True
            asyncio.ensure_future(self.numbered(path))

    def pause_writing(self):
        self.writable.clear()

    def resume_writing(self):
        self.writable.set()

    async def big(self):
        piece = b"x" * (64 << 10)
        self.transport.write(head(200, f"Content-Length: {256 * len(piece)}"))
        for _ in range(256):
            self.transport.write(piece)
            await self.writable.wait()

    async def numbered(self, path):
        if path == "/big":
            await self.big()
            self.busy = False
            return
        number = path.rsplit("/", 1)[1].encode()
        body = (number + b" ") * 100
        if path.startswith("/slow/"):
            await asyncio.sleep(2)
        if path.startswith("/drip/"):
            self.transport.write(head(200, f"Content-Length: {len(body)}"))
            tenth = -(-len(body) // 10)
            for at in range(0, len(body), tenth):
                await asyncio.sleep(0.02)
                self.transport.write(body[at:at + tenth])
        elif number.isdigit() and int(number) % 2:
            half = len(body) // 2
            pieces = chunk(body[:half]) + chunk(body[half:]) + b"0\r\n\r\n"
            self.transport.write(head(200, "Transfer-Encoding: chunked") + pieces)
        else:
            self.transport.write(sized(200, body))
        self.busy = False
        self.take()
        if stopping and not self.busy:
            self.transport.close()


stopping = False


async def main():
    global health, traffic, hanging, stopping
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)

    async def obey():
        global health, traffic, hanging
        while line := (await orders.readline()).decode().split():
            if line[0] == "health":
                health = int(line[1])
            elif line[0] == "traffic":
                traffic = line[1]
            else:
                hanging = line[0] == "hang"
                for connection in list(connections):
                    (connection.transport.pause_reading if hanging else connection.transport.resume_reading)()
                    connection.take()
            print("done", flush=True)
        # Whoever started it is gone.
        os._exit(1)

    ordered = asyncio.ensure_future(obey())
    await stop.wait()
    stopping = True
    server.close()
    for connection in list(connections):
        if not connection.busy and not connection.buffer:
            connection.transport.close()
    while connections:
        await asyncio.sleep(0.005)
    ordered.cancel()


asyncio.run(main())
