"""Ray's word of a death, in words for a person."""

from __future__ import annotations

import re

_ADVICE = re.compile(r"\s*Some common causes include:.*", re.DOTALL)
_CODES = re.compile(r"Worker exit type: \S+ Worker exit detail: ")


def cause_of(error: BaseException) -> str:
    """Ray's reason in one line, without its general advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return _CODES.sub("", _ADVICE.sub("", lines[-1])).rstrip(".")
