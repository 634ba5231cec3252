"""What a reader of docs/guides sees who does what the pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from tests.examples.conftest import REPOSITORY, Desk, Head
from tests.examples.pages import Reader, blocks_of
from tests.examples.test_examples import dashboard_answers
from tests.waiting import wait_until

GUIDES = REPOSITORY / "docs" / "guides"
CLOCK = Path(__file__).with_name("clock.py")


@pytest.fixture
def reader(head: Head, tmp_path: Path) -> Reader:
    environment = {
        **head.environment,
        "RAY_API_SERVER_ADDRESS": head.dashboard,
        "PYTHONPATH": str(REPOSITORY),
    }
    return Reader(Desk(head.folder, environment), tmp_path)


def test_a_ray_job_is_submitted_and_deploys_an_app(head: Head, reader: Reader) -> None:
    wait_until(lambda: dashboard_answers(head.dashboard), timeout_s=60)
    for block in blocks_of(GUIDES / "ray-jobs.md"):
        reader.follow(block)


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


def test_a_clusters_file_is_valid_and_its_pools_say_why_they_wait(reader: Reader) -> None:
    for block in blocks_of(GUIDES / "clusters.md"):
        reader.follow(block)
    reader.run("python", "shop.py")
    check_cluster((reader.folder / "cluster.yaml").read_text())


def check_cluster(text: str) -> None:
    """Ray would take the file."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = yaml.safe_load(text)
    prepared: Any = prepare_config(given)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_the_clock_scales_a_deployed_app(reader: Reader) -> None:
    def clock(at: str, *words: str) -> None:
        reader.run("python", str(CLOCK), at, *words)

    clock("2026-07-01T05:59:30-04:00")
    try:
        for block in blocks_of(GUIDES / "scheduled-scaling.md"):
            if "function stats" in block.text:
                clock("2026-07-01T06:00:01-04:00", "shop/serve", "2")
            reader.follow(block)
    finally:
        clock("now")
