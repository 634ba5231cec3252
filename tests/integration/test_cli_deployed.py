"""`flexray deploy` and `flexray app` on a cluster that runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flexray
from tests.integration.conftest import Run
from tests.waiting import wait_until

SHOP = """
import flexray

app = flexray.App({name!r})

@app.function(cpu=0)
def price(x):
    return {version}, 2 * x
"""


@pytest.fixture
def name(run: Run) -> Iterator[str]:
    name = f"shell-{secrets.token_hex(4)}"
    yield name
    run("app", "stop", name)


@pytest.fixture
def file(tmp_path: Path, name: str) -> Callable[[int], Path]:
    def write(version: int) -> Path:
        file = tmp_path / f"shop_{secrets.token_hex(4)}.py"
        file.write_text(SHOP.format(name=name, version=version))
        return file

    return write


def test_an_app_is_deployed_shown_rolled_back_and_stopped(
    run: Run, name: str, file: Callable[[int], Path]
) -> None:
    assert run("deploy", file(1))[:2] == (0, f"{name} is deployed as version 1: price\n")
    price = flexray.Function.from_name(name, "price")
    assert price.remote(1) == (1, 2)
    code, printed, _ = run("deploy", file(2), "--strategy", "recreate", "--json")
    assert (code, json.loads(printed)) == (0, {"app": name, "version": 2, "functions": ["price"]})
    wait_until(lambda: price.remote(1) == (2, 2))
    (row,) = [row for row in json.loads(run("app", "list", "--json")[1]) if row["app"] == name]
    assert (row["version"], row["current"], row["functions"]) == (2, True, ["price"])
    assert name in run("app", "list")[1]
    assert run("app", "rollback", name)[1] == f"{name} is at version 3, which is version 1 again\n"
    wait_until(lambda: price.remote(1) == (1, 2))
    history = run("app", "history", name)[1].splitlines()
    assert [line.split()[0] for line in history[1:]] == ["3", "2", "1"]
    assert ["current" in line for line in history[1:]] == [True, False, False]
    assert "current (again 1)" in history[1]
    assert run("app", "stop", name)[1] == f"{name} is stopped\n"
    code, _, told = run("app", "history", name)
    assert code != 0
    assert f"no app '{name}' is deployed" in told


def test_functions_are_shown_and_retuned(run: Run, name: str, tmp_path: Path) -> None:
    file = tmp_path / f"shop_{secrets.token_hex(4)}.py"
    file.write_text(
        f"""
import flexray
app = flexray.App({name!r})
@app.function(cpu=0, schedule=flexray.Period(hours=3))
def price(x=1):
    return 2 * x
@app.cls(cpu=0)
class Model:
    size: int = flexray.parameter(default=1)
    @flexray.method()
    def f(self): pass
"""
    )
    run("deploy", file)
    function = f"{name}/price"
    told = run("function", "autoscaler", function, "--min", 1, "--window", 9)[1]
    assert told.startswith(f"{function}: min_containers 1, max_containers as many as fit, ")
    assert told.endswith("scaledown_window 9\n")
    wait_until(lambda: json.loads(run("function", "stats", function, "--json")[1])["containers"]["ready"])
    shown = run("function", "stats", function)[1]
    assert "containers: 1 ready; 1 more inputs would run at once" in shown
    assert "newest decision: " in shown
    rows = json.loads(run("function", "list", name, "--json")[1])
    assert [(row["function"], row["ready"], row["schedule"]) for row in rows] == [
        (function, 1, "Period(hours=3)"),
        (f"{name}/Model", None, None),
    ]
    assert function in run("function", "list")[1]
    assert "is a class" in run("function", "stats", f"{name}/Model")[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("app", "stop", "nobody"), "no app 'nobody' is deployed"),
        (("app", "rollback", "nobody"), "no app 'nobody' is deployed"),
        (("app", "rollback", "nobody", "x"), "Invalid value for 'VERSION'"),
        (("function", "stats", "nobody"), "'nobody' names no function"),
        (("function", "stats", "nobody/f"), "no app 'nobody' is deployed"),
        (("function", "autoscaler", "nobody/f", "--min", "x"), "Invalid value for '--min'"),
        (("deploy", "no_such_file.py"), "there is no file no_such_file.py"),
        (("deploy",), "Missing argument 'FILE'"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(run: Run, words: tuple[str, ...], told: str) -> None:
    code, printed, error = run(*words)
    assert (code != 0, printed) == (True, "")
    assert told in error
    assert "hint:" in error
    assert "Traceback" not in error


def test_a_file_that_cannot_be_deployed_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / f"shop_{secrets.token_hex(4)}.py"
    file.write_text("import flexray\none = flexray.App('one')\ntwo = flexray.App('two')\n")
    assert "has several apps: one, two" in run("deploy", file)[2]
    assert "has no app 'three'" in run("deploy", f"{file}::three")[2]
    assert "app one has no functions" in run("deploy", f"{file}::one")[2]
