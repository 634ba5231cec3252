"""Spawned inputs that an earlier process had sent when it died, until it is known what became of them.

One rule: an input belongs to the newest batch that it was sent in. That batch is sent again, to the same
container and under the same name, and only its answer, or the container's death, moves the input (rule 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flexray.config import Retries
from flexray.core.retry import retry_delay_s
from flexray.core.status import FAILED, LOST, UNSTARTED, BatchKey

Outcome = tuple[int, int, object]
"""(input, status, payload)"""


class Recovery:
    """What one pool waits for after a restart. `retries` and `at_most_once` are those of the function."""

    def __init__(self, *, retries: Retries | None = None, at_most_once: bool = False) -> None:
        self._retries = retries
        self._at_most_once = at_most_once
        self._newest: dict[int, BatchKey] = {}

    def __contains__(self, input_id: int) -> bool:
        return input_id in self._newest

    def __len__(self) -> int:
        return len(self._newest)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._newest))

    def add(self, key: BatchKey, input_ids: Iterable[int]) -> None:
        """These inputs have no outcome and were sent in that batch, after every batch added before."""
        self._newest.update(dict.fromkeys(input_ids, key))

    def drop(self, input_ids: Iterable[int]) -> None:
        """These are over: cancelled, say."""
        for input_id in input_ids:
            self._newest.pop(input_id, None)

    def take(
        self,
        key: BatchKey,
        input_ids: Sequence[int],
        attempts: Mapping[int, int],
        statuses: bytes | None,
        payloads: Sequence[object] = (),
        cause: str = "",
        *,
        noted: Mapping[int, int] | None = None,
    ) -> tuple[list[Outcome], list[tuple[int, int]]]:
        """The answer to a batch; None: its container is dead. Returns the outcomes, and what to run again.

        The latter as (input, attempt). `attempts` are those that were sent; an input that the container gave
        back may have been on a later one since, in another batch that is over: that is `noted`.
        """
        outcomes: list[Outcome] = []
        again: list[tuple[int, int]] = []
        for position, input_id in enumerate(input_ids):
            if self._newest.get(input_id) != key:
                continue
            del self._newest[input_id]
            attempt = attempts.get(input_id, 1)
            if statuses is None:
                if self._at_most_once:
                    outcomes.append((input_id, LOST, cause))
                else:
                    again.append((input_id, attempt))
                continue
            status = statuses[position]
            if status == UNSTARTED:
                again.append((input_id, attempt))
            elif status == FAILED and retry_delay_s(self._retries, attempt) is not None:
                again.append((input_id, attempt + 1))
            else:
                outcomes.append((input_id, status, payloads[position]))
        return outcomes, [(i, max(attempt, (noted or {}).get(i, 1))) for i, attempt in again]
