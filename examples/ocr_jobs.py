"""A job queue for documents: scanned bills are submitted, and another process asks for what they say.

    flexray run examples/ocr_jobs.py

It prints the ids of the calls and starts `python examples/ocr_jobs.py poll ID...`, which any process of the
cluster may do. The model is PP-OCRv6, 31 MB. It is inside a package, so nothing is downloaded here.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import ray
from PIL import Image, ImageDraw, ImageFont
from rapidocr import RapidOCR

import flexray

BILLS = {
    "Harbour Bakery": "Receipt no. 20418 | 2026-03-14 / "
    "Rye bread, 3 loaves | 12.60 / Cinnamon rolls, 8 | 18.40 / Apple cake | 21.50 / Total | 52.50",
    "Wheel & Chain Repairs": "Invoice 7731 | 2 April 2026 / "
    "Inner tube 28 x 1.75 | 6.95 / Brake pads, rear | 14.20 / Labour, 45 minutes | 33.75 / Total | 54.90",
    "North Shore Ferry Company": "Ticket A-0093 | 17/05/2026 08:40 / "
    "2 adults | 19.80 / Vehicle under 5 m | 31.00 / Harbour fee | 1.15 / Total | 51.95",
    "E. Lindqvist, piano lessons": "Invoice 2026-018 | 30 June 2026 / "
    "5 lessons | 187.50 / Sheet music | 24.30 / Total | 211.80",
    "Friends of the Observatory": "Receipt 5582 | 12 Aug 2026 / "
    "Family ticket | 28.00 / Star chart, laminated | 9.49 / Donation | 10.00 / Total | 47.49",
    "Green Gate Nursery": "Bill 116/26 | 09.10.2026 / "
    "Potting soil 40 l | 8.79 / Apple tree 'Discovery' | 34.90 / Delivery, 12 km | 6.00 / Total | 49.69",
}

app = flexray.App("ocr-jobs")


@app.cls(cpu=1, max_containers=2, retries=3)
class Reader:
    @flexray.enter()
    def load(self) -> None:
        one_thread = {"EngineConfig.onnxruntime.intra_op_num_threads": 1, "Global.log_level": "error"}
        self.model: Any = RapidOCR(params=one_thread)
        self.model(scan([["Hello"]]))  # It is loaded with the first page that it reads.

    @flexray.method()
    def read(self, title: str, page: bytes) -> tuple[str, str]:
        return title, self.model(page).to_markdown()


def rows_of(title: str) -> list[list[str]]:
    return [[title], *(row.split(" | ") for row in BILLS[title].split(" / "))]


def scan(rows: list[list[str]]) -> bytes:
    """A PNG of a page, grey, grainy and a little crooked, as it comes out of a scanner."""
    page = Image.new("L", (760, 80 + 56 * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(32)
    for y, (left, *right) in enumerate(rows):
        draw.text((60, 60 + 56 * y), left, font=font)
        draw.text((700, 60 + 56 * y), "".join(right), font=font, anchor="ra")
    tilted = np.asarray(page.rotate(0.6, Image.Resampling.BICUBIC, fillcolor="white"))
    grain = np.random.default_rng(len(rows)).normal(25, 15, tilted.shape)
    file = io.BytesIO()
    Image.fromarray((tilted * 0.8 + grain).clip(0, 255).astype("uint8")).save(file, "png")
    return file.getvalue()


def poll(call_ids: list[str]) -> None:
    """Ask again and again for what is there, without waiting for it; this process has nothing but the ids."""
    calls = [flexray.FunctionCall.from_id(call_id) for call_id in call_ids]
    results: dict[int, tuple[str, str]] = {}
    before, began_at = -1, time.perf_counter()
    print(f"\nprocess {os.getpid()} asks:\n\n   after ", *(f"page {i:<2}" for i in range(len(calls))))
    while len(results) < len(calls):
        for i in set(range(len(calls))) - results.keys():
            with contextlib.suppress(TimeoutError):
                results[i] = calls[i].get(timeout=0)
        if len(results) != before:
            states = ("done   " if i in results else "waiting" for i in range(len(calls)))
            print(f"  {time.perf_counter() - began_at:4.1f} s ", *states, flush=True)
        before = len(results)
        time.sleep(0.05)
    for _, (title, text) in sorted(results.items()):
        compare(title, text)


def compare(title: str, text: str) -> None:
    one, other = "".join(map("".join, rows_of(title))).replace(" ", ""), "".join(text.split())
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    *parts, total = (float(amount) for amount in re.findall(r"\d+\.\d\d$", text, re.MULTILINE))
    sums = "add" if round(sum(parts), 2) == total else "do not add"
    print(f"\n{sum(block.size for block in blocks)} of {len(one)} characters; the amounts {sums} up:")
    print(*(f"  {line}" for line in text.splitlines() if line), sep="\n")


@app.local_entrypoint()
def main() -> None:
    print(f"process {os.getpid()} submits:\n")
    calls = [Reader().read.spawn(title, scan(rows_of(title))) for title in BILLS]
    for i, (title, call) in enumerate(zip(BILLS, calls, strict=True)):
        print(f"  page {i}  {call.object_id}  {title}", flush=True)
    # The app lasts as long as this block, so it waits for the other process.
    command = [sys.executable, __file__, "poll", *(call.object_id for call in calls)]
    joining = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    subprocess.run(command, env=joining, check=True)  # noqa: S603  # It is this very file.


if __name__ == "__main__":
    if sys.argv[1:2] == ["poll"]:
        poll(sys.argv[2:])
    else:
        with app.run():
            main()
