"""A server with the faults that real engines have, one per argument. Standard library only."""

from __future__ import annotations

import argparse
import json
import multiprocessing.shared_memory
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--delay", type=float, default=0.0, help="seconds before it listens")
parser.add_argument("--die", type=int, default=None, help="write 40 lines and exit with this code after the delay")
parser.add_argument("--die-by", type=int, default=None, help="end by this signal after the delay")
parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
parser.add_argument("--silent", action="store_true", help="listen, but never be healthy")
parser.add_argument("--refuse", action="store_true", help="be healthy, but refuse completions")
parser.add_argument("--daemons", type=int, default=0, help="orphans in sessions of their own, deaf to SIGTERM")
parser.add_argument("--segment", action="store_true", help="hold a shared-memory segment and a semaphore")
parser.add_argument("--allocate", type=int, default=0, help="MiB shared with a forked child")
parser.add_argument("--witness", type=Path, default=None, help="folder for the process ids and other traces")
args = parser.parse_args()

DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open(sys.argv[1] + f"/pid-{os.getpid()}", "w").close()
time.sleep(600)
"""


def leave_trace(name: str, text: str = "") -> None:
    if args.witness:
        (args.witness / name).write_text(text)


leave_trace(f"pid-{os.getpid()}")
leave_trace("tmpdir", os.environ.get("TMPDIR", ""))
if args.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(args.daemons):
    subprocess.run([sys.executable, "-c", DAEMON, str(args.witness)], check=True)
if args.segment:
    segment = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    semaphore = multiprocessing.get_context("spawn").Semaphore()
    leave_trace("segment", segment.name)
    leave_trace("semaphore", "sem." + semaphore._semlock.name.lstrip("/"))
if args.allocate:
    block = bytearray(os.urandom(2**20) * args.allocate)
    if os.fork() == 0:
        time.sleep(600)

time.sleep(args.delay)
if args.die is not None:
    print("\n".join(f"line {number}" for number in range(40)), flush=True)
    sys.exit(args.die)
if args.die_by is not None:
    os.kill(os.getpid(), args.die_by)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(503 if args.silent else 200, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        leave_trace("request", json.dumps(body))
        self.reply(400 if args.refuse else 200, {"error": "no such thing"} if args.refuse else {"choices": []})

    def reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer.allow_reuse_address = False
ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()
