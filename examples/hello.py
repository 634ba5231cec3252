"""The smallest program: one function, one input, then many.

flexray run examples/hello.py
"""

import os

import flexray

app = flexray.App("hello")


@app.function(max_containers=2)
def square(x: int) -> int:
    print(f"squaring {x} in process {os.getpid()}")
    return x * x


@app.local_entrypoint()
def main(count: int = 10) -> None:
    print("here:           ", square.local(3))
    print("in a container: ", square.remote(3))
    print("all of them:    ", list(square.map(range(count))))


if __name__ == "__main__":
    with app.run():
        main()
