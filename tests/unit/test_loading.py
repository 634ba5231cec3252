from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flexray.app import App
from flexray.cli.loading import find_target, load_file, load_module, split_target
from flexray.errors import InvalidError


def app_with(*, entrypoints: tuple[str, ...] = (), functions: tuple[str, ...] = ()) -> App:
    app = App()
    for name in entrypoints:
        app.local_entrypoint(name=name)(lambda: None)
    for name in functions:
        app.function(name=name)(lambda: None)
    return app


@pytest.fixture(autouse=True)
def _imports_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    return write_file


def module_with(**apps: App) -> ModuleType:
    module = ModuleType("users_module")
    vars(module).update(apps)
    return module


def refusal(call: Callable[..., Any], *args: Any) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        call(*args)
    assert caught.value.hint is not None
    return caught.value


def test_a_target_is_a_source_and_perhaps_a_name() -> None:
    assert split_target("grid.py") == ("grid.py", None)
    assert split_target("a/grid.py::main") == ("a/grid.py", "main")
    assert split_target("pkg.mod::app.main") == ("pkg.mod", "app.main")
    assert split_target("grid.py::") == ("grid.py", None)


def test_a_file_is_a_module_of_its_own_name(write: Callable[[str, str], Path]) -> None:
    path = write("users_grid.py", "x = __name__\nran = False\nif __name__ == '__main__':\n    ran = True\n")
    module = load_file("users_grid.py")
    assert (module.x, module.ran) == ("users_grid", False)
    assert sys.modules["users_grid"] is module
    assert module.__file__ == str(path)


def test_a_file_finds_the_modules_beside_it(write: Callable[[str, str], Path]) -> None:
    write("folder/users_helper.py", "y = 7\n")
    write("folder/users_main.py", "from users_helper import y\n")
    assert load_file("folder/users_main.py").y == 7


def test_a_file_that_fails_is_not_left_among_the_modules(write: Callable[[str, str], Path]) -> None:
    write("users_broken.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_file("users_broken.py")
    assert "users_broken" not in sys.modules


@pytest.mark.parametrize(
    ("given", "sentence", "hint"),
    [
        ("gird.py", "there is no file gird.py", "did you mean grid.py?"),
        ("grid", "there is no file grid", "did you mean grid.py?"),
        ("nothing_like_it.py", "there is no file nothing_like_it.py", "the current folder is"),
        ("missing/grid.py", "there is no folder missing", "check the path"),
        ("folder", "folder is a folder", "folder/app.py"),
        ("notes.txt", "notes.txt is not a Python file", "end in .py"),
        ("queue.py", "queue.py has the name of another module, queue", "my_queue.py"),
        ("ray.py", "ray.py has the name of another module, ray", "my_ray.py"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_with_a_hint(
    write: Callable[[str, str], Path], given: str, sentence: str, hint: str
) -> None:
    for name in ("grid.py", "folder/x.py", "notes.txt", "queue.py", "ray.py"):
        write(name, "")
    error = refusal(load_file, given)
    assert sentence in str(error)
    assert hint in str(error.hint)


def test_a_module_is_found_in_the_current_folder(write: Callable[[str, str], Path]) -> None:
    write("users_package/__init__.py", "")
    write("users_package/users_module.py", "from . import other\nx = other.x\n")
    write("users_package/other.py", "x = 3\n")
    assert load_module("users_package.users_module").x == 3


@pytest.mark.parametrize("name", ["users_nothing", "users_nothing.deeper", ".relative", ""])
def test_a_module_that_does_not_exist_is_refused_with_a_hint(
    write: Callable[[str, str], Path], name: str
) -> None:
    refusal(load_module, name)


def test_a_module_missing_inside_the_users_module_is_the_users_error(
    write: Callable[[str, str], Path],
) -> None:
    write("users_importer.py", "import users_missing\n")
    with pytest.raises(ModuleNotFoundError, match="users_missing"):
        load_module("users_importer")


def test_the_one_entrypoint_runs() -> None:
    app = app_with(entrypoints=("start",), functions=("f", "g"))
    target = find_target(module_with(app=app), None, "grid.py")
    assert target.app is app
    assert target.entrypoint is app.entrypoints["start"]
    assert target.function is None


def test_of_several_entrypoints_the_one_named_main_runs() -> None:
    app = app_with(entrypoints=("train", "main"))
    assert find_target(module_with(app=app), None, "grid.py").name == "main"


def test_without_entrypoints_the_one_function_runs() -> None:
    app = app_with(functions=("f",))
    assert find_target(module_with(app=app), None, "grid.py").function is app.functions["f"]


def test_a_name_is_an_entrypoint_before_it_is_a_function() -> None:
    app = app_with(entrypoints=("f", "g"), functions=("f", "h"))
    assert find_target(module_with(app=app), "f", "grid.py").entrypoint is app.entrypoints["f"]
    assert find_target(module_with(app=app), "h", "grid.py").function is app.functions["h"]


def test_a_name_is_looked_for_in_every_app() -> None:
    apps = {"one": app_with(entrypoints=("a",)), "two": app_with(entrypoints=("b",))}
    assert find_target(module_with(**apps), "b", "grid.py").app is apps["two"]


def test_an_app_can_be_named_by_its_variable() -> None:
    apps = {"one": app_with(entrypoints=("a",)), "two": app_with(entrypoints=("a", "b"))}
    assert find_target(module_with(**apps), "one", "grid.py").app is apps["one"]
    assert find_target(module_with(**apps), "two.a", "grid.py").app is apps["two"]


def test_one_app_in_two_variables_is_one_app() -> None:
    app = app_with(entrypoints=("a",))
    assert find_target(module_with(app=app, same=app), None, "grid.py").name == "a"


def test_a_function_of_an_included_app_runs_with_the_app_that_includes_it() -> None:
    included, app = app_with(functions=("f",)), app_with()
    app.include(included)
    assert find_target(module_with(included=included, app=app), "f", "grid.py").app is app


@pytest.mark.parametrize(
    ("apps", "name", "sentence", "hint"),
    [
        ({}, None, "grid.py has no flexray.App", "app = flexray.App()"),
        ({"app": app_with()}, None, "no local entrypoint and no function", "@app.local_entrypoint()"),
        ({"app": app_with(entrypoints=("a", "b"))}, None, "several local entrypoints: a, b", "grid.py::a"),
        ({"app": app_with(functions=("f", "g"))}, None, "several functions", "grid.py::f"),
        ({"app": app_with(entrypoints=("train",))}, "tarin", "named tarin", "did you mean grid.py::train?"),
        ({"app": app_with(entrypoints=("train",))}, "xyz", "named xyz", "it has train"),
        (
            {"one": app_with(entrypoints=("a",)), "two": app_with(entrypoints=("a",))},
            "a",
            "several a: one.a, two.a",
            "grid.py::one.a",
        ),
        (
            {"one": app_with(entrypoints=("main",)), "two": app_with(entrypoints=("main", "b"))},
            None,
            "several local entrypoints: one.main, two.main",
            "grid.py::one.main",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_choices(
    apps: dict[str, App], name: str | None, sentence: str, hint: str
) -> None:
    error = refusal(find_target, module_with(**apps), name, "grid.py")
    assert sentence in str(error)
    assert hint in str(error.hint)
