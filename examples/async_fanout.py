"""The asynchronous forms: every method has an `.aio`, so that calls can be combined like any coroutine.

flexray run examples/async_fanout.py
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import flexray

app = flexray.App("async-fanout")

STATIONS = ["Harbour", "Lighthouse", "Market", "Orchard", "Pass", "Quarry", "Summit", "Valley"]


# An async function runs on an event loop of its own in the container.
@app.function(max_containers=4, cpu=0.25)
async def measure(station: str) -> list[float]:
    chance = random.Random(station)
    await asyncio.sleep(chance.uniform(0.1, 0.5))
    return [chance.gauss(12, 4) for _ in range(24)]


@app.function(max_containers=2, cpu=0.25)
def summarize(readings: list[float]) -> str:
    return f"{min(readings):5.1f} to {max(readings):4.1f} °C"


async def report(station: str) -> tuple[str, str]:
    """Two steps: a station that has been measured is summarized while others are still being measured."""
    return station, await summarize.remote.aio(await measure.remote.aio(station))


async def arrivals() -> AsyncIterator[str]:
    for station in STATIONS:
        await asyncio.sleep(0.02)
        yield station


@app.local_entrypoint()
async def main() -> None:
    print("gather: all stations at once, two steps each")
    for station, summary in await asyncio.gather(*map(report, STATIONS)):
        print(f"  {station:<10} {summary}")

    print("async for: from an async iterator, in the order in which they finish")
    began_at = time.perf_counter()
    async for readings in measure.map.aio(arrivals(), order_outputs=False):
        print(f"  after {time.perf_counter() - began_at:.2f} s: {len(readings)} readings")

    stats = await measure.get_current_stats.aio()
    print(f"measure has {stats.num_total_runners} containers now")


async def run() -> None:
    async with app.run():
        await main()


if __name__ == "__main__":
    asyncio.run(run())
