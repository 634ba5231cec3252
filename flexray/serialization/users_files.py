"""What the user wrote, as against what is installed.

One rule: a Python file is the user's own when it lies neither in Python's folders, nor in a `site-packages`,
nor in FlexRay.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar


def is_defined_by_user(obj: Any) -> bool:
    """Whether it is a function, class or module from a file of the user's own."""
    if isinstance(obj, ModuleType):
        module: ModuleType | None = obj
    elif isinstance(obj, type | FunctionType | TypeVar):
        module = sys.modules.get(obj.__module__ or "")
    else:
        return False
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and file.endswith(".py") and _is_users_file(file)


@functools.cache
def _is_users_file(file: str) -> bool:
    path = os.path.realpath(file)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not any(path.startswith(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in names}
    return (*sorted(folders), OWN_FOLDER)


OWN_FOLDER = str(Path(__file__).resolve().parents[1]) + os.sep
