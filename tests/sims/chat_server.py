"""A chat endpoint on this machine that plays what a test tells it to, and counts."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "key-0123456789-ABCDEFGHIJ"
TOKENS = (100, 10)  # that the server says each request took


def said(text, **more):
    """What a chat endpoint replies when all is well."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": TOKENS[0], "completion_tokens": TOKENS[1], "total_tokens": sum(TOKENS)}
    completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "played", "choices": [choice]}
    return completion | {"usage": usage} | more


class Played(ThreadingHTTPServer):
    """A server whose `play(body, count)` gives (status, headers, JSON or bytes, seconds to wait)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, play):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.play, self.lock = play, threading.Lock()
        self.requests, self.in_flight, self.most_in_flight = [], Counter(), Counter()
        self.seconds_a_byte = 0.0
        self.answered = 0  # replies of status 200 that were sent whole

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that timed out or was killed has closed its end: nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        with server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append((time.monotonic(), headers, body))
            server.in_flight[model] += 1
            server.most_in_flight[model] = max(server.most_in_flight[model], server.in_flight[model])
            count = len(server.requests)
        try:
            status, headers, reply, seconds = server.play(body, count)
            time.sleep(seconds)
        finally:
            with server.lock:
                server.in_flight[model] -= 1
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        slowly = server.seconds_a_byte
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        for piece in [data[i : i + 1] for i in range(len(data))] if slowly else [data]:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(slowly)
        if status == 200:
            with server.lock:
                server.answered += 1
