"""A Ray job whose functions scale: submit it to a cluster that runs, and the app joins that cluster.

    ray job submit --address http://127.0.0.1:8265 --working-dir examples -- python ray_job.py

Containers get the job's runtime_env, so they find the files of its working directory.
"""

from pathlib import Path

import flexray

app = flexray.App("ray-job")


@app.function(max_containers=2, cpu=0.5)
def count_lines(path: str) -> int:
    return len(Path(path).read_text(encoding="utf-8").splitlines())


@app.local_entrypoint()
def main() -> None:
    paths = [str(path) for path in sorted(Path("data").glob("*.txt"))]
    for path, lines in zip(paths, count_lines.map(paths), strict=True):
        print(f"{path}: {lines} lines, counted in a container")


if __name__ == "__main__":
    with app.run():
        main()
