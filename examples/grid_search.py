"""Finds the best classifier of handwritten digits: a grid search in two rounds, each a `.map`.

    flexray run examples/grid_search.py --output picture.png

Containers appear when a round begins and are gone 2 s after it has ended. The picture shows when which
container ran which point of the grid.
"""

import os
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from grid_search_picture import Round, draw, short
from pool_watch import PoolWatch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import flexray

OUTPUT = str(Path(__file__).parent / "output" / "grid_search.png")
MODELS = {"SVC": SVC, "RandomForest": RandomForestClassifier, "kNN": KNeighborsClassifier}

app = flexray.App("grid-search")


@dataclass(frozen=True)
class Point:
    model: str
    parameters: dict[str, float]
    folds: int = 5

    def __str__(self) -> str:
        return ", ".join(f"{name}={short(value)}" for name, value in self.parameters.items())


@dataclass(frozen=True)
class Score:
    point: Point
    accuracy: float
    container: int
    """The id of the process that ran it: one for each container."""
    began_at: float
    ended_at: float


# Half a core each, so that four of them fit on two cores; and one thread each, so that they share the cores
# instead of fighting for them.
@app.function(
    cpu=0.5,
    max_containers=4,
    scaledown_window=2,
    env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
)
def evaluate(point: Point) -> Score:
    began_at = time.time()
    images, digits = load_digits(return_X_y=True)
    fixed = {"random_state": 0} if point.model == "RandomForest" else {}
    model = MODELS[point.model](**point.parameters, **fixed)
    folds = StratifiedKFold(point.folds, shuffle=True, random_state=0)
    accuracy = float(cross_val_score(model, images, digits, cv=folds).mean())
    return Score(point, accuracy, os.getpid(), began_at, time.time())


def coarse_grid() -> list[Point]:
    svc = product([0.01, 0.1, 1, 10, 100, 1000], [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    forest = product([10, 30, 100], [4, 8, 16])
    return [
        *(Point("SVC", {"C": c, "gamma": gamma}) for c, gamma in svc),
        *(Point("RandomForest", {"n_estimators": trees, "max_depth": depth}) for trees, depth in forest),
        *(Point("kNN", {"n_neighbors": k}) for k in (1, 2, 3, 4, 5, 7, 9, 13, 20)),
    ]


def fine_grid(best: Point) -> list[Point]:
    """Points around the best SVC, half a decade to each side."""
    steps = [10 ** (step / 4) for step in (-2, -1, 0, 1, 2)]
    c, gamma = best.parameters["C"], best.parameters["gamma"]
    return [Point("SVC", {"C": c * left, "gamma": gamma * right}) for left, right in product(steps, steps)]


def search(title: str, grid: list[Point], folds: int, watch: PoolWatch) -> Round:
    print(f"\n{title}: {len(grid)} points")
    scores = list(evaluate.map([replace(point, folds=folds) for point in grid]))
    print(f"  {watch.elapsed_s:5.1f} s   all {len(grid)} points are done; idle containers go after 2 s")
    watch.wait_until_empty()
    return Round(title, scores)


def print_table(scores: list[Score]) -> None:
    print("\n  accuracy  model         parameters")
    distinct = {(score.point.model, str(score.point)): score for score in scores}
    for score in sorted(distinct.values(), key=lambda score: -score.accuracy)[:8]:
        print(f"  {score.accuracy:8.2%}  {score.point.model:<12}  {score.point}")


def print_containers(rounds: list[Round], began_at: float) -> None:
    print("\n  container  round    inputs  busy from  to")
    for found in rounds:
        for container in dict.fromkeys(score.container for score in found.scores):
            mine = [score for score in found.scores if score.container == container]
            first = min(score.began_at for score in mine) - began_at
            last = max(score.ended_at for score in mine) - began_at
            print(f"  {container:9}  {found.title:<7}  {len(mine):6}  {first:7.1f} s  {last:.1f} s")


@app.local_entrypoint()
def main(output: str = OUTPUT, folds: int = 5) -> None:
    with PoolWatch(evaluate) as watch:
        coarse = search("coarse", coarse_grid(), folds, watch)
        best = max((score for score in coarse.scores if score.point.model == "SVC"), key=lambda s: s.accuracy)
        fine = search("fine", fine_grid(best.point), folds, watch)
    rounds = [coarse, fine]
    scores = coarse.scores + fine.scores
    print_table(scores)
    print_containers(rounds, watch.began_at)
    containers = len({score.container for score in scores})
    print(f"\n{len(scores)} inputs ran in {containers} containers, at most 4 at once; now there is none.")
    draw(rounds, watch, Path(output))
    print(f"The picture is {os.path.relpath(output)}")


if __name__ == "__main__":
    with app.run():
        main()
