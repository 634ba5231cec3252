"""Does this attempt run again, and when.

One rule: a failure of the function is retried as its policy says; a loss of its container is not the
function's fault, so it runs again at once and uncounted, until it is plain that the input is the cause.
"""

from __future__ import annotations

from flexray.config import Retries

LOSSES_MAX = 3
"""Losses of an input that ran alone on its container, after which the input is taken to be the cause."""


def retry_delay_s(policy: Retries | None, attempt: int) -> float | None:
    """Seconds from the failure of `attempt` (numbered from 1) to the next one; None: no further attempt.

    `Retries(max_retries=3, initial_delay=1.0, backoff_coefficient=2.0)` gives 1, 2, 4 s, then None.
    """
    if policy is None or attempt > policy.max_retries:
        return None
    return min(policy.max_delay, policy.initial_delay * policy.backoff_coefficient ** (attempt - 1))


def runs_again_after_loss(*, at_most_once: bool, losses_alone: int) -> bool:
    """Whether an input runs again whose container died while it may have been running.

    | at_most_once | losses while alone | again |
    |---|---|---|
    | yes | any | no |
    | no | fewer than 3 | yes |
    | no | 3 | no |
    """
    return not at_most_once and losses_alone < LOSSES_MAX
