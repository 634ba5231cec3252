"""Counts the words of a few tales: `starmap` over (title, paragraph) pairs.

flexray run examples/word_count.py --top 5
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import flexray

TALES = Path(__file__).parent / "data"
COMMON = set(
    """
    a an and as at but by for from had he her his in into it its no not of on or she so than that the their
    them then there they this to was were when which who with
    """.split()  # noqa: SIM905  # A list would be a screen of quotes.
)

app = flexray.App("word-count")


@app.function(max_containers=2)
def count_words(title: str, paragraph: str) -> tuple[str, Counter[str]]:
    words = re.findall(r"[a-z]+", paragraph.lower())
    return title, Counter(word for word in words if word not in COMMON)


def paragraphs() -> Iterator[tuple[str, str]]:
    for path in sorted(TALES.glob("*.txt")):
        title, *rest = path.read_text(encoding="utf-8").split("\n\n")
        yield from ((title.strip(), paragraph) for paragraph in rest)


@app.local_entrypoint()
def main(top: int = 8) -> None:
    counts: dict[str, Counter[str]] = {}
    for title, counted in count_words.starmap(paragraphs()):
        counts.setdefault(title, Counter()).update(counted)
    for title, counted in counts.items():
        print(f"{title}: {counted.total()} words that are not small change")
    print("\nin all of them:")
    for word, count in sum(counts.values(), Counter()).most_common(top):
        print(f"  {word:<10} {'▪' * count} {count}")


if __name__ == "__main__":
    with app.run():
        main()
