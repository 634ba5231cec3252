"""The web site of an island, served on this machine for as long as somebody looks at it.

Some of its pages are slow, one link is broken, one page fails the first time, one is for no robot, and its
calendar never ends.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

SECTIONS = {
    "harbour": ["ferries", "catch-of-the-day", "tides"],
    "lighthouse": ["keeper", "fog-signals", "visits"],
    "market": ["bakery", "cheese", "lost-and-found"],
    "orchard": ["apples", "bees", "cider"],
    "school": ["choir", "timetable", "trips"],
    "weather": ["forecast", "records", "storms"],
}
ELSEWHERE = "https://example.org/"
BROKEN = "/market/bargains"
FAILS_ONCE = "/lighthouse/keeper"
PRIVATE = "/school/marks"
NO_HTML = "/harbour/tides.csv"
SLOW_S, QUICK_S = 0.6, 0.2


def pages() -> dict[str, list[str]]:
    """Links by path, but for those of the calendar."""
    site = {"/": [*(f"/{section}" for section in SECTIONS), "/calendar/1", ELSEWHERE]}
    for section, articles in SECTIONS.items():
        site[f"/{section}"] = ["/", *(f"{section}/{article}" for article in articles)]
        for article in articles:
            path = f"/{section}/{article}"
            site[path] = ["/", f"/{section}", f"{path}/notes#first"]
            site[f"{path}/notes"] = [path, "/market/cheese"]
    site["/market"].append(BROKEN)
    site["/weather/storms"].append(BROKEN)
    site["/school"].append(PRIVATE)
    site["/harbour/tides"].append(NO_HTML)
    return site


def is_slow(path: str) -> bool:
    return path.endswith("/notes") and len(path) % 3 == 0


class Handler(BaseHTTPRequestHandler):
    site = pages()
    visits: Counter[str]

    def do_GET(self) -> None:
        self.visits[self.path] += 1
        time.sleep(SLOW_S if is_slow(self.path) else QUICK_S)
        if self.path == "/robots.txt":
            self.answer(200, f"User-agent: *\nDisallow: {PRIVATE}\n", "text/plain")
        elif self.path == NO_HTML:
            self.answer(200, "hour,metres\n4,0.6\n10,2.1\n", "text/csv")
        elif self.path == FAILS_ONCE and self.visits[self.path] == 1:
            self.answer(503, "The keeper is asleep.", "text/plain")
        elif self.path.startswith("/calendar/"):
            day = int(self.path.rpartition("/")[2])
            self.answer(200, html(f"Day {day} of the year", [f"/calendar/{day + 1}"]))
        elif self.path in self.site:
            self.answer(200, html(title_of(self.path), self.site[self.path]))
        else:
            self.answer(404, "There is no such page.", "text/plain")

    def answer(self, code: int, text: str, kind: str = "text/html") -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """It would be a line for every visit."""


def title_of(path: str) -> str:
    words = [word.replace("-", " ") for word in path.split("/") if word]
    return ", ".join(reversed(words)).capitalize() or "The island's own pages"


def html(title: str, links: list[str]) -> str:
    anchors = "".join(f'<li><a href="{link}">{title_of(link)}</a></li>' for link in links)
    return f"<!doctype html><html><head><title>{title}</title></head><body><ul>{anchors}</ul></body></html>"


@contextmanager
def serve() -> Iterator[str]:
    """Its address, while the block runs. Nobody has visited it yet."""
    handler = type("Handler", (Handler,), {"visits": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
