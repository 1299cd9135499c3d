"""A server with a known rate (1000 tokens per second) and counters: stands for an engine in the grading tests."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

TOTALS = {"prompt": 0, "generated": 0}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urlparse(self.path)
        if asked.path == "/generate":
            tokens = int(parse_qs(asked.query)["tokens"][0])
            for _ in range(tokens // 20):
                time.sleep(0.02)
                TOTALS["generated"] += 20
            TOTALS["prompt"] += 5
            body = {"tokens": tokens // 20 * 20}
        else:
            body = TOTALS
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
