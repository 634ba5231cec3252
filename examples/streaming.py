"""Results while the work goes on: `remote_gen` runs a generator in a container and is read here.

    flexray run examples/streaming.py

First a search without an end, left when enough is found; then three islands, all of them watched at once.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import count

import flexray

ISLANDS = ["Burrow", "Clover", "Thicket"]

app = flexray.App("streaming")


def is_prime(odd: int) -> bool:
    return all(odd % divisor for divisor in range(3, int(odd**0.5) + 1, 2))


@app.function(cpu=0.5, max_containers=1)
def twin_primes(beyond: int) -> Iterator[tuple[int, int]]:
    """Pairs of primes that are two apart, without an end: leaving the loop over there closes it here."""
    found = 0
    try:
        for odd in count(beyond | 1, step=2):
            if is_prime(odd) and is_prime(odd + 2):
                found += 1
                yield odd, odd + 2
    finally:
        print(f"nobody reads on: closed at {odd:,}, after {found} pairs")


@app.function(cpu=0.25, max_containers=len(ISLANDS))
def island(name: str, years: int) -> Iterator[tuple[int, int, int]]:
    """(year, hares, foxes) at the end of each year. Every birth, hunt and death happens on its own."""
    chance = random.Random(name)
    hares, foxes, now = chance.randint(10_000, 40_000), chance.randint(1_000, 6_000), 0.0
    for year in range(1, years + 1):
        while now < year:
            births, hunts, deaths = 1.0 * hares, 0.0001 * hares * foxes, 0.6 * foxes
            now += chance.expovariate(births + hunts + deaths)
            event = chance.uniform(0, births + hunts + deaths)
            if event < births:
                hares += 1
            elif event < births + hunts:
                hares -= 1
                foxes += chance.random() < 0.2  # Five hares feed a young fox.
            else:
                foxes -= 1
        yield year, hares, foxes


async def watch(name: str, years: int, began_at: float) -> None:
    async for year, hares, foxes in island.remote_gen.aio(name, years):
        after_s = time.perf_counter() - began_at
        print(f"  {after_s:4.1f} s  {name:<7}  year {year:2}  {'▪' * (hares // 2000)}{'▴' * (foxes // 2000)}")


async def watch_all(years: int) -> None:
    began_at = time.perf_counter()
    await asyncio.gather(*(watch(name, years, began_at) for name in ISLANDS))


@app.local_entrypoint()
def main(pairs: int = 8, years: int = 12) -> None:
    print(f"the first {pairs} twin primes beyond ten thousand million:")
    began_at = time.perf_counter()
    for found, (one, other) in enumerate(twin_primes.remote_gen(10**10), start=1):
        print(f"  {time.perf_counter() - began_at:4.1f} s  {one:,} and {other:,}")
        if found == pairs:
            break

    print("\n▪ two thousand hares, ▴ two thousand foxes:")
    asyncio.run(watch_all(years))


if __name__ == "__main__":
    with app.run():
        main()
