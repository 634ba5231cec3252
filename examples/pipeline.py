"""Stages that spawn the next ones from inside containers: what are chapters of Python's reference about?

    flexray run examples/pipeline.py --chapters "types string-methods debugger import async"

Words speak for a chapter that are frequent in it and rare in the others. No stage waits for the next one;
the last is given the ids of the calls whose results it needs.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from pydoc_data.topics import topics
from typing import Any

import flexray

CHAPTERS = "types specialnames string-methods formatstrings debugger import exceptions"
PART_CHARACTERS, WORDS = 10_000, 6

app = flexray.App("pipeline")


@app.function(cpu=0.25, max_containers=1)
def start(titles: list[str]) -> str:
    """The id of the call that will have the answer."""
    chapters = [cut.spawn(topics[title]).object_id for title in titles]
    return choose.spawn(titles, chapters).object_id


@app.function(cpu=0.25, max_containers=1)
def cut(chapter: str) -> list[str]:
    """The ids of the calls that count the words of its parts."""
    return [count.spawn(part).object_id for part in textwrap.wrap(chapter, PART_CHARACTERS)]


@app.function(cpu=0.25, max_containers=2)
def count(part: str) -> Counter[str]:
    return Counter(re.findall("[a-z]{3,}", part.lower()))


@app.function(cpu=0.25, max_containers=1)
def choose(titles: list[str], chapters: list[str]) -> dict[str, list[str]]:
    counts = [sum(results(parts), Counter[str]()) for parts in results(chapters)]
    chapters_with = Counter(word for counted in counts for word in counted)
    chosen = {}
    for title, counted in zip(titles, counts, strict=True):
        weights = {word: n * math.log(len(titles) / chapters_with[word]) for word, n in counted.items()}
        chosen[title] = sorted(weights, key=lambda word: -weights[word])[:WORDS]
    return chosen


def results(call_ids: Iterable[str]) -> list[Any]:
    return flexray.FunctionCall.gather(*(flexray.FunctionCall.from_id(call_id) for call_id in call_ids))


def draw(inputs: list[flexray.InputInfo], indent: str = "  ") -> None:
    """The calls as a tree, equal ones without children in one line."""
    for each in inputs:
        if each.children:
            print(f"{indent}{each.function_name}: {each.status}")
            draw(each.children, indent + "    ")
    leaves = Counter((each.function_name, each.status) for each in inputs if not each.children)
    for (name, status), times in leaves.items():
        print(f"{indent}{name}: {status}" + f" x {times}" * (times > 1))


@app.local_entrypoint()
def main(chapters: str = CHAPTERS) -> None:
    call = start.spawn(chapters.split())
    print(f"call {call.object_id}")
    answer = flexray.FunctionCall.from_id(call.get())
    print("\nits first stage is over:\n")
    draw(call.get_call_graph())
    chosen = answer.get()
    print("\nall of them are:\n")
    draw(call.get_call_graph())
    print()
    for title, words in chosen.items():
        print(f"  {title:<16}{', '.join(words)}")


if __name__ == "__main__":
    with app.run():
        main()
