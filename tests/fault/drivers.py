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
