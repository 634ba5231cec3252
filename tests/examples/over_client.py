"""What a program sees that is connected by Ray Client; prints one line for each thing that it did."""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

import flexray

app = flexray.App("over-client")


@app.function(cpu=0, runtime_env={"working_dir": sys.argv[1]})
def packaged() -> str:
    return Path("shipped.txt").read_text().strip()


@app.function(cpu=0)
def square(x: int) -> int:
    return x * x


@app.function(cpu=0)
def doubled(array: Any) -> Any:
    return array * 2


@app.function(cpu=0)
def count(to: int) -> Iterator[int]:
    yield from range(to)


@app.function(cpu=0)
def ask(counter: Any) -> int:
    return int(ray.get(counter.next.remote()))


@app.function(cpu=0)
def fail() -> None:
    message = "on purpose"
    raise ValueError(message)


@app.cls(cpu=0)
class Scaler:
    by: int = flexray.parameter(default=1)

    @flexray.method()
    def scale(self, x: int) -> int:
        print(f"scaling {x}")
        return x * self.by


@ray.remote(num_cpus=0)
class Counter:
    def next(self) -> int:
        return 1


async def of_coroutines() -> list[Any]:
    streamed: AsyncIterator[int] = count.remote_gen.aio(3)
    return [
        await square.remote.aio(9),
        [x async for x in square.map.aio(range(3))],
        [x async for x in streamed],
    ]


def connect() -> None:
    """Ray starts a server for each client, which now and then does not come up in its 30 s."""
    for tries_left in (2, 1, 0):
        try:
            ray.init(os.environ["CLIENT_ADDRESS"], logging_level="ERROR")
        except ConnectionError:
            if not tries_left:
                raise
        else:
            return


def main() -> None:
    connect()
    with app.run():
        print("remote", square.remote(3))
        print("map", sum(square.map(range(1000))))
        print("stream", list(count.remote_gen(20)) == list(range(20)))
        print("large", doubled.remote(np.ones(500_000)).sum())
        print("reference", square.remote(ray.put(5)))
        print("handle", ask.remote(Counter.remote()))
        print("method", Scaler(by=4).scale.remote(5))
        print("coroutines", asyncio.run(of_coroutines()))
        print("spawned", square.spawn(12).get())
        print("packaged", packaged.remote())
        try:
            fail.remote()
        except ValueError as error:
            print("raised", error)
    ray.shutdown()
    print("connected", ray.is_initialized())


if __name__ == "__main__":
    main()
