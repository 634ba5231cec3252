"""Deploys the web scraper, lets six hours pass, and prints what it then found by itself."""

# ruff: noqa: T201

from __future__ import annotations

import sys
import time

import flexray
from flexray import backend
from tests.examples import clock
from tests.waiting import wait_until


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import web_scraper

    web_scraper.DEPTH = 1  # It travels with the functions, and a whole crawl takes longer.
    now = time.time()
    clock.move(now)
    web_scraper.app.deploy()
    try:
        clock.move(now + 6 * 3600 + 1)
        connected = backend.connect()
        (call,) = wait_until(
            lambda: [one for one in connected.ask_queue("newest", 20) if one.function == "look_regularly"]
        )
        print(flexray.FunctionCall.from_id(call.call_id).get(timeout=60))
    finally:
        web_scraper.app.stop()
        clock.move(None)


if __name__ == "__main__":
    main()
