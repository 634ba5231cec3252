"""A web scraper that reads many pages at once: each round of a crawl is a `.map` over what was found before.

    flexray run examples/web_scraper.py
    flexray run examples/web_scraper.py --url https://example.org/ --depth 1

Without an address it reads a small site that it serves itself. Deployed, it reads every six hours by itself:

    START_URL=https://example.org/ flexray deploy examples/web_scraper.py
    flexray call list     then: flexray call get ID

The small site is on the machine that serves it; on a cluster of several nodes give an address.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from textwrap import shorten
from urllib.error import HTTPError
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import Request, urlopen
from urllib.robotparser import RobotFileParser

import small_site

import flexray

START_URL = os.environ.get("START_URL", "")  # Read where the app is deployed; it travels with the functions.
DEPTH = 3
AGENT = "flexray-example"
TIMEOUT_S = 10
LONGEST = 2**20

app = flexray.App("web-scraper")


@dataclass(frozen=True)
class Page:
    url: str
    title: str = ""
    links: tuple[str, ...] = ()
    problem: str = ""
    took_s: float = 0.0
    attempt: int = 1
    container: int = 0
    """The id of the process that read it: one for each container."""


class Reader(HTMLParser):
    """Gathers the title and the links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title, self.hrefs, self._in_title = "", list[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""


# Reading is mostly waiting, so a container reads four pages at once; the next one starts before it is needed,
# for every round finds more pages than the one before.
@app.function(
    cpu=0.25,
    max_containers=3,
    buffer_containers=1,
    timeout=30,
    retries=flexray.Retries(max_retries=2, initial_delay=0.2),
)
@flexray.concurrent(max_inputs=4)
def fetch(url: str) -> Page:
    began_at = time.perf_counter()
    page = Page(url, attempt=flexray.current_attempt() or 1, container=os.getpid())
    try:
        request = Request(url, headers={"User-Agent": AGENT})  # noqa: S310  # The caller knows the scheme.
        with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            kind = answer.headers.get_content_type()
            text = answer.read(LONGEST).decode(answer.headers.get_content_charset("utf-8"), "replace")
            found_at = answer.url  # Not where it was looked for, if that led somewhere else.
    except HTTPError as error:
        with error:
            if error.code >= 500:
                # It may pass, so the input fails, and runs again as its retries say.
                raise ConnectionError(f"{error.code} {error.reason}") from None
            return replace(page, problem=f"{error.code} {error.reason}")
    took_s = time.perf_counter() - began_at
    if kind != "text/html":
        return replace(page, title=f"({kind})", took_s=took_s)
    read = Reader(text)
    links = (urldefrag(urljoin(found_at, href)).url for href in read.hrefs)
    return replace(page, title=" ".join(read.title.split()), links=tuple(dict.fromkeys(links)), took_s=took_s)


def crawl(start: str, depth: int) -> Iterator[tuple[int, Page]]:
    """Every page of the site once, with how many links it is away from the start, nearest first."""
    robots = RobotFileParser(urljoin(start, "/robots.txt"))
    with suppress(OSError):  # Without its rules nothing is read but the start.
        robots.read()
    frontier, seen = [start], {start}
    for away in range(depth + 1):
        beyond = []
        outcomes: Iterable[Page | Exception] = fetch.map(frontier, return_exceptions=True)
        for url, outcome in zip(frontier, outcomes, strict=True):
            page = outcome if isinstance(outcome, Page) else Page(url, problem=str(outcome))
            yield away, page
            for link in page.links:
                if link not in seen and is_of_site(link, start) and robots.can_fetch(AGENT, link):
                    seen.add(link)
                    beyond.append(link)
        frontier = beyond


def is_of_site(link: str, start: str) -> bool:
    return urlsplit(link)[:2] == urlsplit(start)[:2]


def report(found: list[tuple[int, Page]], elapsed_s: float) -> str:
    start = found[0][1].url
    there = [page for _, page in found if not page.problem]
    containers = len({page.container for page in there})
    in_a_row_s = sum(page.took_s for page in there)
    lines = [start, "", "  away  page                              links     took  title"]
    lines += [row(away, page, start) for away, page in found if not page.problem]
    lines += [
        "",
        f"pages: {len(there)} in {elapsed_s:.1f} s; one after the other they take {in_a_row_s:.1f} s",
    ]
    lines += [f"containers: {containers}", *broken_links(found, start)]
    elsewhere = {link for page in there for link in page.links if not is_of_site(link, start)}
    return "\n".join([*lines, f"links that lead elsewhere: {len(elsewhere)}"])


def row(away: int, page: Page, start: str) -> str:
    title = shorten(page.title, 48, placeholder=" ...") or "(no title)"
    again = f"  [attempt {page.attempt}]" if page.attempt > 1 else ""
    took = f"{page.took_s * 1000:,.0f} ms"
    return f"  {away:>4}  {short(page.url, start):<32}  {len(page.links):>5}  {took:>7}  {title}{again}"


def broken_links(found: list[tuple[int, Page]], start: str) -> list[str]:
    problems = {page.url: page.problem for _, page in found if page.problem}
    lines = [f"broken links: {len(problems)}"]
    for url, problem in problems.items():
        linked_from = [short(page.url, start) for _, page in found if url in page.links]
        lines.append(
            f"  {short(url, start)}  {problem}, linked from {' and '.join(linked_from) or 'nowhere'}"
        )
    return lines


def short(url: str, start: str) -> str:
    """Its path, where it is of that site."""
    return url.removeprefix(urljoin(start, "/").removesuffix("/"))


def look_at(url: str, depth: int) -> str:
    """What is found at that address, or without one at the small site."""
    with nullcontext(urljoin(url, urlsplit(url).path or "/")) if url else small_site.serve() as start:
        began_at = time.perf_counter()
        found = list(crawl(start, depth))
        return report(found, time.perf_counter() - began_at)


@app.function(cpu=0, schedule=flexray.Period(hours=6))
def look_regularly() -> str:
    return look_at(START_URL, DEPTH)


@app.local_entrypoint()
def main(url: str = START_URL, depth: int = DEPTH) -> None:
    print(look_at(url, depth))


if __name__ == "__main__":
    with app.run():
        main()
