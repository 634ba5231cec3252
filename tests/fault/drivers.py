"""What drivers print, which Ray mixes with warnings of its own."""

from __future__ import annotations

import subprocess


def wait_for_line(driver: subprocess.Popen[str], line: str) -> None:
    """Read what it prints until this line; fails the test where it ends before."""
    assert driver.stdout
    for printed in driver.stdout:
        if printed.strip() == line:
            return
    message = f"the driver ended with {driver.wait()} before it printed {line!r}"
    raise AssertionError(message)


def lines_until(driver: subprocess.Popen[str], last: str) -> list[list[str]]:
    """The words of every line that it prints before this one; fails the test where it ends before."""
    assert driver.stdout
    found: list[list[str]] = []
    for printed in driver.stdout:
        if printed.strip() == last:
            return found
        found.append(printed.split())
    message = f"the driver ended with {driver.wait()} before it printed {last!r}"
    raise AssertionError(message)
