"""What a reader of docs/guides sees who does what the pages say."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from flexray.runtime.placement import actor_options, infeasible
from tests.examples.conftest import EXAMPLES, REPOSITORY, Desk, Head
from tests.examples.pages import Reader, blocks_of
from tests.waiting import wait_until

GUIDES = REPOSITORY / "docs" / "guides"


@pytest.fixture
def reader(head: Head, tmp_path: Path) -> Reader:
    environment = {**head.environment, "PYTHONPATH": str(REPOSITORY)}
    return Reader(Desk(head.folder, {**environment, "RAY_API_SERVER_ADDRESS": head.dashboard}), tmp_path)


def test_a_ray_job_scales_on_its_cluster_and_deploys_an_app(head: Head, reader: Reader) -> None:
    wait_until(lambda: dashboard_answers(head.dashboard), timeout_s=60)
    shutil.copytree(EXAMPLES / "data", reader.folder / "data")
    for block in blocks_of(GUIDES / "ray-jobs.md"):
        reader.follow(block)
    example = (EXAMPLES / "ray_job.py").read_text(encoding="utf-8")
    assert example.endswith('"""\n\n' + (reader.folder / "ray_job.py").read_text(encoding="utf-8"))


def dashboard_answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # It wants the token, so it is there.
    except OSError:
        return False


def test_the_cells_of_a_notebook_print_what_is_below_them(reader: Reader) -> None:
    blocks = blocks_of(GUIDES / "notebooks.md")
    notebook: Any = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(block.text) for block in blocks if block.language == "python"]
    )
    nbformat.write(notebook, reader.folder / "guide.ipynb")
    reader.run("jupyter-execute", "--output=executed.ipynb", "guide.ipynb")

    cells = iter(nbformat.read(reader.folder / "executed.ipynb", as_version=4).cells)
    for block in blocks:
        if block.language == "python":
            reader.printed = "".join(map(shown, next(cells).outputs))
        else:
            reader.follow(block)


def shown(output: Any) -> str:
    assert output.output_type in {"stream", "execute_result"}, output
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


def test_a_cluster_can_hold_what_its_app_asks_for(tmp_path: Path) -> None:
    """Without a cloud: Ray takes the file, and its types of nodes have what the functions need."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    nowhere = Reader(Desk(tmp_path, {}), tmp_path)
    for block in blocks_of(GUIDES / "clusters.md"):
        nowhere.follow(block)
    config: Any = prepare_config(yaml.safe_load((tmp_path / "cluster.yaml").read_text(encoding="utf-8")))
    validate_config(config)
    types = config["available_node_types"]
    nodes = [
        {"Alive": True, "Resources": one["resources"], "Labels": one.get("labels", {})}
        for name, one in types.items()
        if name != config["head_node_type"]
    ]
    app = runpy.run_path(str(tmp_path / "shop.py"))["app"]
    assert list(app.functions) == ["resize", "caption"]
    for function in app.functions.values():
        assert infeasible(actor_options(function.config.resources, nodes), nodes) is None
    assert len(nodes) == len(app.functions)


Clock = Callable[..., None]


@pytest.fixture
def move_clock(reader: Reader) -> Iterator[Clock]:
    """Called with a time, and then with a function and the containers that it is to keep warm."""
    command = [sys.executable, str(Path(__file__).with_name("clock.py"))]
    environment = reader.desk.environment
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        lines, answers = process.stdin, process.stdout
        assert lines is not None
        assert answers is not None

        def move(*words: str) -> None:
            lines.write(" ".join(words) + "\n")
            lines.flush()
            assert answers.readline() == "done\n", words

        yield move
        process.communicate()
    assert process.returncode == 0


def test_the_clock_scales_a_deployed_app(reader: Reader, move_clock: Clock) -> None:
    move_clock("2026-07-01T05:59:30-04:00")
    for block in blocks_of(GUIDES / "scheduled-scaling.md"):
        if "function stats" in block.text:
            move_clock("2026-07-01T06:00:01-04:00", "shop/serve", "2")
        if "function autoscaler" in block.text:
            move_clock("2026-07-01T22:00:01-04:00", "shop/serve", "0")
        reader.follow(block)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *GUIDES.glob("*.md")]:
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == []
