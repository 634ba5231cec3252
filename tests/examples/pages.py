"""Reads the fenced blocks of a page, and does with each what the guides say is done with it.

| block | what is done |
|---|---|
| with a `title="name"` | it is written to a file of that name |
| `python` without one | it is run as a program |
| `bash` | it is run by a shell |
| `text` | the block before it has printed this; `...` stands for anything |
| `console` | its `flexray` and `ray` commands are parsed, as those programs would, and not run |
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from flexray import cli
from tests.examples.conftest import Desk

FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE
)
LANGUAGES = {"python", "bash", "text", "console", "yaml"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All of them; fails where a fence was opened that this does not understand."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(
            page.name,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["title"],
            match["text"],
        )
        for match in FENCE.finditer(text)
    ]
    assert 2 * len(found) == text.count("```"), f"{page.name} has a fence of another kind"
    assert {block.language for block in found} <= LANGUAGES
    assert all(block.title for block in found if block.language == "yaml")
    return found


@dataclass
class Reader:
    """Somebody who does what a page says, block by block, in a folder of their own."""

    desk: Desk
    folder: Path
    printed: str | None = field(default=None)
    """By the newest block that was run; None: nothing was, or it has been compared."""

    def follow(self, block: Block) -> None:
        if block.language == "text":
            assert self.printed is not None, f"{block} follows nothing that was run"
            assert_shows(self.printed, block)
            self.printed = None
        elif block.language == "console":
            check_console(block)
        elif block.title:
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            self.run("bash", "-euc", block.text)
        else:
            program = self.folder / f"block_at_line_{block.line}.py"
            program.write_text(block.text, encoding="utf-8")
            self.run("python", program.name)

    def run(self, *command: str) -> None:
        done = self.desk.run_command(command, cwd=self.folder)
        self.printed = done.stdout + done.stderr


def assert_shows(printed: str, block: Block) -> None:
    """The lines of the block were printed, one below the other. Spaces are not counted."""
    lines = [r"\s+".join(map(_pattern_of, line.split())) for line in block.text.splitlines()]
    pattern = r"^\s*" + r"[^\S\n]*\n\s*".join(lines) + r"[^\S\n]*$"
    assert re.search(pattern, printed, re.MULTILINE), f"{block} shows\n{block.text}\nbut there was\n{printed}"


def _pattern_of(word: str) -> str:
    return ".*".join(map(re.escape, word.split("...")))


def check_console(block: Block) -> None:
    lines = block.text.replace("\\\n", " ").splitlines()
    assert all(line.startswith("$ ") for line in lines), f"{block} has a line without $"
    for line in lines:
        for words in commands_in(shlex.split(line.removeprefix("$ "), comments=True)):
            check_command(words, f"{block}: {line}")


def commands_in(words: list[str]) -> Iterator[list[str]]:
    """The command without variables before it, and the one that it sends to a cluster."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if "--" in words:
        yield from commands_in(words[words.index("--") + 1 :])
        words = [*words[: words.index("--")], "--", "true"]
    if words[:2] == ["ray", "exec"]:
        yield from commands_in(shlex.split(words[-1]))
    yield words


def check_command(words: list[str], where: str) -> None:
    """The program has such a command with such options; others than `flexray` and `ray` are not looked at."""
    command: Any
    if words[0] == "flexray":
        command = typer.main.get_command(cli.app)
    elif words[0] == "ray":
        from ray.scripts.scripts import cli as command
    else:
        return
    rest: list[str] | None = words[1:]
    try:
        while rest is not None:
            context = command.make_context(command.name or words[0], rest)
            command, rest = _next(command, context)
    except Exception as error:
        message = f"{where}: {error!r} {getattr(error, 'message', '')}"
        raise AssertionError(message) from error


def _next(command: Any, context: Any) -> tuple[Any, list[str] | None]:
    """The command of a group that the words name, and what is left for it; None: it is a single command."""
    if not hasattr(command, "resolve_command"):
        return command, None
    with context:
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return found, rest
