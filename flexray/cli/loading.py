"""From `FILE::NAME` to what should run.

One rule: the file is loaded as `python FILE` would load it, except that its module carries its own name, so
that a container can be told where its functions come from and `if __name__ == "__main__":` does not run.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from flexray.app import App, LocalEntrypoint
from flexray.errors import InvalidError
from flexray.function import Function


@dataclass(frozen=True, slots=True)
class Target:
    """What `flexray run` runs: a local entrypoint or a function, and the app that must run meanwhile."""

    app: App
    name: str
    """As a user would write it after `::`."""
    entrypoint: LocalEntrypoint | None = None
    """The local entrypoint, or None for a function."""
    function: Function[..., Any] | None = None
    """The function, or None for a local entrypoint."""


def split_target(text: str) -> tuple[str, str | None]:
    """The file or module and the name of `FILE[::NAME]`."""
    source, separator, name = text.rpartition("::")
    return (source, name or None) if separator else (text, None)


def load_file(path_text: str) -> ModuleType:
    """The module of a Python file, with the file's folder first on `sys.path`.

    Raises:
        InvalidError: There is no such file, it is not Python, or its name is taken by another module.
        Exception: Whatever the file itself raises.
    """
    path = Path(path_text).resolve()
    if not path.is_file():
        _refuse_missing_file(path_text, path)
    if path.suffix != ".py":
        raise InvalidError(f"{path_text} is not a Python file", "its name must end in .py")
    if _is_taken(path.stem, path):
        message = f"{path_text} has the name of another module, {path.stem}, which it would hide"
        raise InvalidError(message, f"rename it, as in my_{path.stem}.py")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem, None)
        raise
    return module


def load_module(name: str) -> ModuleType:
    """The module of that dotted name, with the current folder first on `sys.path`, as `python -m` has it.

    Raises:
        InvalidError: There is no such module.
        Exception: Whatever the module itself raises.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # Another one, which the user's module imports.
        hint = "modules are looked for in the current folder first; give a file by its path, without -m"
        raise InvalidError(f"no module named {error.name!r}", hint) from None
    except (TypeError, ValueError) as error:
        if name.strip(".") and not name.startswith("."):
            raise
        hint = "give it in full, as in -m package.module"
        raise InvalidError(f"{name!r} is not the name of a module", hint) from error


def find_target(module: ModuleType, name: str | None, source: str) -> Target:
    """What to run of the module's apps.

    | name given | what runs |
    |---|---|
    | no | the one local entrypoint, or the one named `main`; without any, the one function |
    | `NAME` | the local entrypoint or function of that name, in whichever app it is |
    | `APP` | as without a name, of the app in that variable |
    | `APP.NAME` | the one of that name of the app in that variable |

    Args:
        module: The user's module.
        name: What followed `::`, or None.
        source: The file or module as the user wrote it, for messages.

    Raises:
        InvalidError: There is no app, nothing of that name, or no single thing to run.
    """
    apps = _apps_of(module)
    if not apps:
        hint = "make one at module level, as in app = flexray.App()"
        raise InvalidError(f"{source} has no flexray.App", hint)
    if name is None:
        return _choose_target(apps, source)
    if name in apps:
        return _choose_target({name: apps[name]}, source)
    variable, _, rest = name.partition(".")
    found = _targets_named(apps, name)
    if not found and rest and variable in apps:
        found = _targets_named({variable: apps[variable]}, rest)
    if not found:
        _refuse_unknown_name(apps, name, source)
    if len(found) > 1:
        names = [f"{variable}.{target.name}" for variable, target in found]
        raise InvalidError(f"{source} has several {name}: {', '.join(names)}", _hint_to_name(source, names))
    return found[0][1]


def find_app(module: ModuleType, variable: str | None, source: str) -> App:
    """The app in that variable of the module, or its only one.

    Raises:
        InvalidError: There is no app, none of that name, or no single one.
    """
    apps = _apps_of(module)
    if not apps:
        hint = "make one at module level, as in app = flexray.App(...)"
        raise InvalidError(f"{source} has no flexray.App", hint)
    if variable is None and len(apps) > 1:
        hint = _hint_to_name(source, apps)
        raise InvalidError(f"{source} has several apps: {', '.join(apps)}", hint)
    if variable is None:
        return next(iter(apps.values()))
    if variable not in apps:
        raise InvalidError(f"{source} has no app {variable!r:.70}", f"it has {', '.join(apps)}")
    return apps[variable]


def _choose_target(apps: dict[str, App], source: str) -> Target:
    entrypoints = _named_targets(apps, entrypoints=True)
    functions = _named_targets(apps, entrypoints=False)
    candidates = entrypoints or functions
    if len(candidates) > 1:
        mains = [found for found in entrypoints if found[1].name == "main"]
        candidates = mains or candidates
    if len(candidates) == 1:
        return candidates[0][1]
    if not candidates:
        hint = "decorate one with @app.local_entrypoint()"
        raise InvalidError(f"{source} has no local entrypoint and no function", hint)
    kind = "local entrypoints" if entrypoints else "functions and no local entrypoint"
    names = _shortest_names(candidates)
    raise InvalidError(f"{source} has several {kind}: {', '.join(names)}", _hint_to_name(source, names))


def _apps_of(module: ModuleType) -> dict[str, App]:
    """The module's apps by variable, each once."""
    apps: dict[str, App] = {}
    for variable, value in vars(module).items():
        if isinstance(value, App) and not any(value is app for app in apps.values()):
            apps[variable] = value
    return apps


def _named_targets(apps: dict[str, App], *, entrypoints: bool) -> list[tuple[str, Target]]:
    """What can run, each with the variable of the app that it runs with."""
    found: list[tuple[str, Target]] = []
    for variable, app in apps.items():
        if entrypoints:
            found += [(variable, Target(app, name, entrypoint=one)) for name, one in app.entrypoints.items()]
        else:
            for name, one in app.functions.items():
                if isinstance(one, Function) and _lives_in(one, app):  # A class takes parameters first.
                    found.append((variable, Target(app, name, function=one)))
    return found


def _lives_in(function: Function[..., Any], app: App) -> bool:
    """Whether the app is the one that starts the function: `App.include` leaves it listed in both."""
    return function._home is app._home  # noqa: SLF001  # Nobody outside FlexRay needs to know.


def _targets_named(apps: dict[str, App], name: str) -> list[tuple[str, Target]]:
    """Those of that name: local entrypoints, or else functions."""
    for entrypoints in (True, False):
        found = [item for item in _named_targets(apps, entrypoints=entrypoints) if item[1].name == name]
        if found:
            return found
    return []


def _shortest_names(found: list[tuple[str, Target]]) -> list[str]:
    names = [target.name for _, target in found]
    return [
        target.name if names.count(target.name) == 1 else f"{variable}.{target.name}"
        for variable, target in found
    ]


def _hint_to_name(source: str, names: Iterable[str]) -> str:
    return f"say which, as in {source}::{next(iter(names))}"


def _refuse_unknown_name(apps: dict[str, App], name: str, source: str) -> NoReturn:
    both = _named_targets(apps, entrypoints=True) + _named_targets(apps, entrypoints=False)
    names = list(dict.fromkeys(_shortest_names(both)))
    similar = difflib.get_close_matches(name, names, n=1)
    hint = f"it has {', '.join(names)}" if names else "decorate one with @app.local_entrypoint()"
    if similar:
        hint = f"did you mean {source}::{similar[0]}?"
    raise InvalidError(f"{source} has no local entrypoint or function named {name}", hint)


def _refuse_missing_file(path_text: str, path: Path) -> NoReturn:
    if path.is_dir():
        raise InvalidError(f"{path_text} is a folder", f"give a file of it, as in {path_text}/app.py")
    if not path.suffix and path.with_suffix(".py").is_file():
        raise InvalidError(f"there is no file {path_text}", f"did you mean {path_text}.py?")
    if not path.parent.is_dir():
        raise InvalidError(f"there is no folder {Path(path_text).parent}", "check the path")
    beside = sorted(other.name for other in path.parent.glob("*.py"))
    similar = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"the current folder is {Path.cwd()}; a module is given as -m package.module"
    if similar:
        hint = f"did you mean {Path(path_text).with_name(similar[0])}?"
    raise InvalidError(f"there is no file {path_text}", hint)


def _is_taken(name: str, path: Path) -> bool:
    """Whether another module of that name is loaded, or will be once Ray starts."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__file__", None) != str(path)
    return name in sys.stdlib_module_names or name == "ray"
