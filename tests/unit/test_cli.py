from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flexray import cli, progress
from flexray.app import App
from flexray.function import Function

HEAD = """\
from __future__ import annotations
from datetime import datetime
from typing import Literal, Optional
import flexray, sys
app = flexray.App()
"""

RUNS: list[str] = []
"""What happened to the app of the last run."""


@contextmanager
def _run_without_ray(app: App, *, detach: bool = False) -> Iterator[None]:
    RUNS.append("started")
    try:
        yield
    except BaseException as error:
        RUNS.append(type(error).__name__)
        raise
    RUNS.append("stopped")


def _remote_without_ray(function: Function[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function.function(*args, **kwargs)


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Writes users_file.py, runs the words after it, and gives the exit code."""
    RUNS.clear()
    monkeypatch.setattr(App, "run", _run_without_ray)
    monkeypatch.setattr(Function, "remote", _remote_without_ray)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def run_words(body: str, *words: str, name: str = "", module: bool = False) -> int:
        (tmp_path / "users_file.py").write_text(HEAD + body)
        importlib.invalidate_caches()
        target = ["-m", f"users_file{name}"] if module else [f"users_file.py{name}"]
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", *target, *words])
        code = caught.value.code
        return code if isinstance(code, int) else 1

    yield run_words
    for module_name in set(sys.modules) - before:
        del sys.modules[module_name]


def entrypoint(parameters: str, body: str = "print(repr(locals()))") -> str:
    return f"@app.local_entrypoint()\ndef main({parameters}):\n    'Says hello.'\n    {body}\n"


@pytest.mark.parametrize(
    ("parameters", "words", "printed"),
    [
        ("", [], {}),
        ("count: int", ["--count", "3"], {"count": 3}),
        ("count: int", ["--", "--count", "3"], {"count": 3}),
        ("count: int = 5", [], {"count": 5}),
        ("ratio: float = 1", ["--ratio=2.5"], {"ratio": 2.5}),
        ("name", ["--name", "5"], {"name": "5"}),
        ("count=5", ["--count", "7"], {"count": 7}),
        ("learning_rate: float", ["--learning-rate", "0.1"], {"learning_rate": 0.1}),
        ("learning_rate: float", ["--learning_rate", "0.1"], {"learning_rate": 0.1}),
        ("fast: bool = False", ["--fast"], {"fast": True}),
        ("fast: bool = True", ["--no-fast"], {"fast": False}),
        ("count: Optional[int]", [], {"count": None}),
        ("count: int | None = 4", ["--count", "3"], {"count": 3}),
        ("size: Literal['s', 'm'] = 'm'", ["--size", "s"], {"size": "s"}),
        ("size: Literal['s', 'm'] = 'm'", [], {"size": "m"}),
        ("level: Literal[1, 2]", ["--level", "2"], {"level": 2}),
        ("*names", ["a", "b"], {"names": ("a", "b")}),
        ("count: int, *sizes: int", ["--count", "1", "2", "3"], {"count": 1, "sizes": (2, 3)}),
        ("a: int, /, *, b: int, **rest", ["--b", "2", "--a", "1"], {"a": 1, "b": 2, "rest": {}}),
    ],
)
def test_parameters_are_options(
    run: Run, capsys: pytest.CaptureFixture[str], parameters: str, words: list[str], printed: Any
) -> None:
    assert run(entrypoint(parameters), *words) == 0
    assert capsys.readouterr().out == f"{printed!r}\n"
    assert RUNS == ["started", "stopped"]


def test_a_datetime_is_given_in_iso_form(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    body = entrypoint("since: datetime", "print(since.isoformat())")
    assert run(body, "--since", "2026-05-01T06:00+02:00") == 0
    assert capsys.readouterr().out == "2026-05-01T06:00:00+02:00\n"


@pytest.mark.parametrize(
    ("parameters", "words", "said"),
    [
        ("count: int", ["--count", "x"], "'--count': 'x' is not a whole number"),
        ("count: int", [], "Missing option '--count'"),
        ("count: int = 1", ["--cuont", "2"], "No such option: --cuont"),
        ("count: int = 1", ["extra"], "unexpected extra argument"),
        ("ratio: float", ["--ratio", "x"], "'x' is not a number"),
        ("size: Literal['s', 'm']", ["--size", "z"], "'z' is not one of s, m"),
        ("since: datetime", ["--since", "soon"], "'soon' is not a date and time"),
        ("*sizes: int", ["x"], "'x' is not a whole number"),
        ("model: flexray.App", [], "the parameter model of main is annotated"),
        ("model: dict[str, int] = {}", [], "the parameter model of main is annotated dict[str, int]"),
        ("model: int | str", [], "the parameter model of main is annotated int | str"),
        ("model: Unknown", [], "an annotation of main cannot be read"),
    ],
)
def test_words_that_do_not_fit_are_refused_before_the_app_starts(
    run: Run, capsys: pytest.CaptureFixture[str], parameters: str, words: list[str], said: str
) -> None:
    assert run(entrypoint(parameters), *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "\n\nhint: " in error
    assert "Traceback" not in error
    assert RUNS == []


@pytest.mark.parametrize("words", [["--help"], ["--", "--help"]])
def test_help_after_the_file_is_about_the_entrypoint(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(entrypoint("count: int = 5"), *words) == 0
    shown = capsys.readouterr().out
    assert "Usage: flexray run users_file.py" in shown
    assert "Says hello." in shown
    assert "--count <int>" in shown
    assert RUNS == []


def test_a_module_runs_as_a_file_does(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(entrypoint("count: int"), "--count", "3", module=True) == 0
    assert capsys.readouterr().out == "{'count': 3}\n"


def test_an_async_entrypoint_is_awaited(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    body = "import asyncio\n@app.local_entrypoint()\nasync def main():\n"
    assert run(body + "    await asyncio.sleep(0)\n    print('awaited')\n") == 0
    assert capsys.readouterr().out == "awaited\n"


def test_a_functions_result_is_printed_unless_it_is_none(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "@app.function()\ndef square(x: int):\n    return x * x if x else None\n"
    assert run(body, "--x", "4", name="::square") == 0
    assert run(body, "--x", "0", name="::square") == 0
    assert capsys.readouterr().out == "16\n"


def test_maps_show_their_bars_while_the_entrypoint_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[bool] = []
    monkeypatch.setattr(progress, "show_by_default", switched.append)
    run(entrypoint("", "1 / 0"))
    assert switched == [True, False]


def test_a_failing_entrypoint_shows_the_users_own_traceback(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(entrypoint("", "1 / 0")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "users_file.py" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert sum(line.startswith('  File "') for line in lines) == 1
    assert RUNS == ["started", "ZeroDivisionError"]


def test_a_failing_file_shows_the_users_own_traceback(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("1 / 0\n") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "users_file.py" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_the_failure_of_an_input_ends_at_the_users_call(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "from flexray.serialization.exceptions import pack_exception, unpack_exception\n"
        "from flexray.dual import Dual\n"
        "def fail():\n"
        "    raise unpack_exception(pack_exception(KeyError('k')))\n"
    )
    assert run(body + entrypoint("", "Dual(fail, None)()")) == 1
    error = capsys.readouterr().err
    assert "KeyError: 'k'" in error
    assert "Remote traceback:" in error


def test_an_error_of_flexray_ends_at_the_users_line_with_its_hint(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "from flexray.config import check_name\n" + entrypoint("", "check_name('app', 'a b')")
    assert run(body) == 1
    error = capsys.readouterr().err
    assert error.count("  File ") == 1
    assert "check_name('app', 'a b')" in error
    assert "InvalidError: the name of the app is 'a b'" in error
    assert "\n\nhint: " in error


def test_a_flaw_of_flexray_keeps_its_frames(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("from flexray.dual import Dual\n" + entrypoint("", "Dual(None, None)()")) == 1
    assert "dual.py" in capsys.readouterr().err


def test_a_file_that_is_not_python_is_told_by_its_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("def f(:\n") == 2
    error = capsys.readouterr().err
    assert "users_file.py, line 6 is not valid Python: invalid syntax" in error
    assert "def f(:" in error
    assert "Traceback" not in error


def test_text_that_the_users_code_cannot_parse_is_the_users_failure(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(entrypoint("", "compile('1 +', '<text>', 'exec')")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_reaches_the_app_and_ends_with_130(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(entrypoint("", "raise KeyboardInterrupt")) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert RUNS == ["started", "KeyboardInterrupt"]


def test_sys_exit_of_the_user_passes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(entrypoint("code: int", "sys.exit(code)"), "--code", "7") == 7
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", ["EOFError()", "__import__('typer').Exit(3)", "BaseException('b')"])
def test_no_exception_of_the_user_is_taken_for_the_commands_own(
    run: Run, capsys: pytest.CaptureFixture[str], error: str
) -> None:
    assert run(entrypoint("", f"raise {error}")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "Missing argument"),
        (["rnu"], "No such command 'rnu'"),
        (["run", "--nonsense", "x.py"], "No such option: --nonsense"),
        (["run", "nothing.py"], "there is no file nothing.py"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_hint(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "\n\nhint: " in error


def test_without_words_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 0
    assert "Usage: flexray" in capsys.readouterr().out
