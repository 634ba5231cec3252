"""What a user sees who runs the examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, REPOSITORY, Desk, Head
from tests.waiting import wait_until

SQUARES = "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"


def test_hello_starts_a_ray_of_its_own_and_leaves_nothing_behind(desk: Desk) -> None:
    printed = desk.run("flexray", "run", EXAMPLES / "hello.py")

    assert f"all of them:     {SQUARES}" in printed
    assert "square | squaring 3 in process" in printed
    wait_until(lambda: not desk.processes(), timeout_s=20)


def test_hello_also_runs_with_plain_python(head: Head) -> None:
    assert SQUARES in head.run("python", EXAMPLES / "hello.py")


def test_an_entrypoints_parameter_is_an_option(head: Head) -> None:
    assert "all of them:     [0, 1, 4]" in head.run("flexray", "run", EXAMPLES / "hello.py", "--count", "3")


def test_word_count_finds_the_words_of_the_tales(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "word_count.py", "--top", "3")

    assert printed.count("words that are not small change") == 3
    assert re.findall(r"(\w+) +▪+ (\d+)", printed) == [("book", "7"), ("asked", "6"), ("number", "6")]


def test_async_fanout_combines_calls_like_coroutines(head: Head) -> None:
    printed = head.run("python", EXAMPLES / "async_fanout.py")

    assert len(re.findall(r"^  \w+ +-?\d+\.\d to", printed, re.MULTILINE)) == 8
    after_s = [float(text) for text in re.findall(r"after (\d+\.\d\d) s: 24 readings", printed)]
    assert len(after_s) == 8
    assert after_s == sorted(after_s)


def test_embeddings_loads_a_model_once_and_finds_what_belongs_together(head: Head) -> None:
    about = "something to row across the lake with"
    printed = head.run("flexray", "run", EXAMPLES / "embeddings.py", "--about", about, "--top", "2")

    batches = re.findall(r"^Embedder \| process (\d+) embeds (\d+) texts", printed, re.MULTILINE)
    assert len({process for process, _ in batches}) == 1
    assert sum(int(size) for _, size in batches) == 28 + 1
    assert max(int(size) for _, size in batches) == 16
    assert re.search(r"a grey cat with one white paw\n +A hungry kitten", printed)
    pairs, nearest = printed.split("nearest to ")
    cosines = [float(text) for text in re.findall(r"^  (\d\.\d\d)  ", pairs, re.MULTILINE)]
    assert len(cosines) >= 8
    assert cosines == sorted(cosines, reverse=True)
    assert len(re.findall(r"^  \d\.\d\d  ", nearest, re.MULTILINE)) == 2
    assert "Rowing boat for sale" in nearest


def test_batching_shows_that_batches_are_faster_and_draws_the_pendulums(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "batching.py")

    single, batched = re.findall(
        r"([\d,]+) pendulums +([\d,]+) a second +batches: (.+)$", printed, re.MULTILINE
    )
    assert (single[0], single[2]) == ("56", "56 x 1")
    sizes = [(int(count), int(size)) for count, size in re.findall(r"(\d+) x (\d+)", batched[2])]
    assert sum(count * size for count, size in sizes) == 56 * 21
    assert sizes[0][1] == 64
    assert int(batched[1].replace(",", "")) > 4 * int(single[1].replace(",", ""))
    picture = re.findall(r"^  ([█▓▒░ ]{56})$", printed, re.MULTILINE)
    assert len(picture) == 21
    assert picture[10][28] == " "  # Nearly at rest, it stays so.
    assert picture[0][0] != " "  # Standing on its head, it does not.
    # Swung to the other side, a pendulum does the same.
    drawn = "".join(picture)
    assert sum(here == there for here, there in zip(drawn, drawn[::-1], strict=True)) > 0.95 * len(drawn)


def test_streaming_reads_results_while_they_are_found_and_leaves_early(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "streaming.py")

    pairs = [text.replace(",", "") for text in re.findall(r"s  ([\d,]+) and [\d,]+$", printed, re.MULTILINE)]
    assert len(pairs) == 8
    assert pairs[:3] == ["10000000277", "10000000991", "10000003001"]
    (found,) = re.findall(
        r"^twin_primes \| nobody reads on: closed at [\d,]+, after (\d+) pairs", printed, re.MULTILINE
    )
    assert 8 <= int(found) <= 8 + 17
    lived = re.findall(r"^ +(\d+\.\d) s  (\w+) +year +(\d+)  ▪+▴*$", printed, re.MULTILINE)
    for name in ("Burrow", "Clover", "Thicket"):
        assert [int(year) for _, island, year in lived if island == name] == list(range(1, 13))
    after_s = [float(text) for text, _, _ in lived]
    assert after_s == sorted(after_s)


@pytest.mark.timeout(300)
def test_grid_search_finds_a_good_model_and_its_containers_come_and_go(head: Head, tmp_path: Path) -> None:
    picture = tmp_path / "folder" / "picture.png"
    words = ["--output", picture, "--folds", "2"]  # Half of the time of five.
    printed = head.run("flexray", "run", EXAMPLES / "grid_search.py", *words, timeout_s=280)

    accuracies = [float(text) for text in re.findall(r"^ +(\d+\.\d+)%", printed, re.MULTILINE)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 98
    assert len(re.findall(r"no container$", printed, re.MULTILINE)) >= 2
    assert "79 inputs ran in" in printed
    assert " 5 containers ready" not in printed
    assert_shows_something(picture)


def assert_shows_something(picture: Path) -> None:
    from matplotlib import image

    pixels = image.imread(picture)[:, :, :3]
    height, width, _ = pixels.shape
    assert width > 1200
    assert height > 800
    drawn = pixels.min(axis=2) < 0.95
    for part in (drawn[: height // 3], drawn[height // 3 : 2 * height // 3], drawn[2 * height // 3 :]):
        assert 0.03 < part.mean() < 0.9


def test_the_notebook_runs_from_top_to_bottom(head: Head, tmp_path: Path) -> None:
    executed = tmp_path / "executed.ipynb"
    head.run("jupyter-execute", f"--output={executed}", EXAMPLES / "notebook.ipynb", cwd=EXAMPLES)

    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    text = "".join(str(output.get("text", output.get("data"))) for output in outputs)
    assert re.search(r"40 walks in [12] containers", text)
    assert "max_containers=4" in text
    assert "image/png" in text
    assert "error" not in [output["output_type"] for output in outputs]


def test_the_readmes_example_runs(head: Head, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    example = tmp_path / "squares.py"
    example.write_text(readme.split("```python\n")[1].split("```")[0], encoding="utf-8")

    assert head.run("flexray", "run", example).split() == ["49", "332833500"]


@pytest.mark.long
def test_ocr_jobs_are_fetched_by_another_process_and_read_right(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "ocr_jobs.py")

    pages = re.findall(r"(\d+) of (\d+) characters; the amounts add up", printed)
    assert len(pages) == 6
    right, drawn = (sum(int(page[i]) for page in pages) for i in (0, 1))
    assert right >= 0.95 * drawn
    assert drawn > 500


def test_pipeline_draws_the_calls_that_its_stages_have_spawned(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "pipeline.py")

    last = printed[printed.rindex("start: ") :]
    assert re.match(r"start: done", last)
    assert len(re.findall(r"^\s+cut: done", last, re.MULTILINE)) == 7
    assert "choose: done" in last
    assert not re.search(r": (waiting|running|failed|lost|cancelled)", last)


def test_scheduled_scaling_warms_a_pool_and_lets_it_go(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "scheduled_scaling.py")

    assert re.findall(r"serve keeps (\d) warm", printed) == ["2", "0"]
    assert re.findall(r"s: (\d) containers ready", printed)[0] == "0"
    assert "hello early bird" in printed


def test_web_scraper_reads_every_page_once_and_finds_the_broken_link(head: Head) -> None:
    printed = head.run("flexray", "run", EXAMPLES / "web_scraper.py")

    rows = re.findall(r"^ +(\d)  (/\S*) +(\d+) +[\d,]+ ms  (.+)$", printed, re.MULTILINE)
    steps, paths = [row[0] for row in rows], [row[1] for row in rows]
    assert list(steps) == sorted(steps)
    assert [steps.count(step) for step in "0123"] == [1, 7, 19, 20]
    assert len(set(paths)) == len(paths) == 47
    assert ("0", "/", "8", "The island's own pages") in rows
    assert ("2", "/lighthouse/keeper", "3", "Keeper, lighthouse  [attempt 2]") in rows
    assert ("3", "/harbour/tides.csv", "0", "(text/csv)") in rows
    assert printed.count("[attempt") == 1
    assert "/school/marks" not in printed  # Its robots.txt says so.
    assert "/calendar/4" not in printed  # Too far away.
    assert re.search(
        r"^broken links: 1\n  /market/bargains  404 Not Found, linked from /market and /weather/storms$",
        printed,
        re.MULTILINE,
    )
    ((elapsed_s, in_a_row_s),) = re.findall(
        r"^pages: 47 in (\S+) s; one after the other they take (\S+) s", printed, re.MULTILINE
    )
    assert float(elapsed_s) < float(in_a_row_s)


def test_web_scraper_runs_by_the_clock_where_it_is_deployed(head: Head) -> None:
    environment = {**head.environment, "PYTHONPATH": str(REPOSITORY)}
    program = Path(__file__).with_name("scraper_deployed.py")
    printed = Head(head.folder, environment).run("python", program, EXAMPLES)

    assert "pages: 8 in " in printed
    assert "broken links: 0\nlinks that lead elsewhere: 1" in printed


@pytest.mark.timeout(240)
def test_a_program_that_is_connected_by_ray_client_has_all_of_it(head: Head, tmp_path: Path) -> None:
    (tmp_path / "shipped.txt").write_text("it came along")
    environment = {**head.environment, "CLIENT_ADDRESS": head.client, "PYTHONPATH": str(REPOSITORY)}
    del environment["RAY_ADDRESS"]
    outside = Head(head.folder, environment)

    program = Path(__file__).with_name("over_client.py")
    try:
        printed = outside.run("python", program, tmp_path, timeout_s=220).splitlines()
    except BaseException:
        for log in sorted(head.folder.glob("ray/session_latest/logs/ray_client_server*.err")):
            print(f"{log.name}:\n{log.read_text()}")  # noqa: T201  # Shown where the test fails.
        raise

    assert "Scaler | scaling 5" in printed
    assert [line for line in printed if " | " not in line] == [
        "remote 9",
        "map 332833500",
        "stream True",
        "large 1000000.0",
        "reference 25",
        "handle 1",
        "method 20",
        "coroutines [81, [0, 1, 4], [0, 1, 2]]",
        "spawned 144",
        "packaged it came along",
        "raised on purpose",
        "connected False",
    ]
