"""Every exception that FlexRay raises.

    flexray.Error
    ├── InvalidError            a wrong option, name, argument or use; nothing was started
    ├── NotFoundError           no app, function, class or call of that name
    ├── ExecutionError          it could not be carried out, or the user's own error cannot be shown here
    ├── ResourceExhaustedError  a limit is reached; the input never ran
    ├── FunctionTimeoutError    an attempt took longer than its timeout
    ├── InputCancelledError     the input or its call was cancelled
    ├── InputLostError          the containers that ran the input died
    ├── ContainerStartError     no container of the function can start
    ├── SerializationError      a value cannot be packed
    │   └── DeserializationError  a value cannot be unpacked here
    └── OutputExpiredError      the results of the call are no longer kept

One rule: `args` are the constructor's arguments and the sentence is built in `__str__`, so that every
error survives pickling. A message names the thing, the value received and the bound; then comes a blank
line and `hint:` with what to do.
"""

from __future__ import annotations

from typing import Literal


class Error(Exception):
    """The base of every exception that FlexRay raises.

    Attributes:
        hint: What to do about it, or None.
    """

    hint: str | None = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        Exception.__init__(self, message, hint)
        self.hint = hint

    def sentence(self) -> str:
        """What went wrong, without the hint."""
        return str(self.args[0])

    def __str__(self) -> str:
        sentence = self.sentence()
        return sentence if self.hint is None else f"{sentence}\n\nhint: {self.hint}"


class InvalidError(Error):
    """An option, a name, an argument or a use is wrong. Nothing was started."""


class NotFoundError(Error):
    """No app, function, class or call of that name is known to the cluster."""


class ExecutionError(Error):
    """Something could not be carried out, or the user's own error cannot be shown as its own type.

    Attributes:
        remote_traceback: The traceback in the container, or None where no user code failed.
    """

    def __init__(self, message: str, hint: str | None = None, remote_traceback: str | None = None) -> None:
        Exception.__init__(self, message, hint, remote_traceback)
        self.hint = hint
        self.remote_traceback = remote_traceback

    def sentence(self) -> str:
        """What went wrong, followed by the remote traceback."""
        return _with_traceback(super().sentence(), self.remote_traceback)


class ResourceExhaustedError(Error):
    """A limit on waiting or total inputs is reached. The input never ran.

    Attributes:
        function: The function's name.
        waiting: How many inputs the limit counted: waiting ones, or all of them for "total".
        limit: The bound that was reached.
        kind: Which limit: "pending", "total" or "spawn_pending".
    """

    def __init__(
        self,
        function: str,
        waiting: int,
        limit: int,
        kind: Literal["pending", "total", "spawn_pending"] = "pending",
    ) -> None:
        Exception.__init__(self, function, waiting, limit, kind)
        self.hint = _HINT_OF_LIMIT[kind]
        self.function = function
        self.waiting = waiting
        self.limit = limit
        self.kind = kind

    def sentence(self) -> str:
        """Which function is full, how many inputs it has and which limit that reaches."""
        counted, limit = _WORDS_OF_LIMIT[self.kind]
        return (
            f"{self.function} is full: {self.waiting:,} inputs are {counted} "
            f"and the {limit} limit is {self.limit:,}"
        )


_WORDS_OF_LIMIT = {
    "pending": ("waiting", "pending"),
    "total": ("waiting or running", "total"),
    "spawn_pending": ("spawned and waiting", "spawn_pending"),
}

_HINT_OF_LIMIT = {
    "pending": "call it again later, use .spawn() for work that can wait, or raise max_containers",
    "total": "call it again later, use .map(), which waits for room, or raise limits=Limits(total=...)",
    "spawn_pending": "spawn it again later, raise max_containers, or raise limits=Limits(spawn_pending=...)",
}


class FunctionTimeoutError(Error):
    """An attempt ran longer than the function's timeout and was stopped.

    Attributes:
        function: The function's name.
        timeout_s: The timeout in seconds.
    """

    hint = "raise timeout= (seconds per attempt, at most 86400), or give it smaller inputs"

    def __init__(self, function: str, timeout_s: float) -> None:
        Exception.__init__(self, function, timeout_s)
        self.function = function
        self.timeout_s = timeout_s

    def sentence(self) -> str:
        """Which function ran longer than which timeout."""
        return f"{self.function} ran longer than its timeout of {self.timeout_s:g} s and was stopped"


class InputCancelledError(Error):
    """The input, its call or its app was cancelled. It may have run in part."""

    def __init__(self, message: str = "the input was cancelled", hint: str | None = None) -> None:
        super().__init__(message, hint)


class InputLostError(Error):
    """The containers that ran the input died. It may have run in part, more than once.

    Attributes:
        function: The function's name.
        losses: How many containers died under the input.
        cause: What Ray said of the last death.
    """

    hint = (
        "if the process ran out of memory ask for more with memory=; "
        "otherwise look in the container's log for a crash in native code or a call of os._exit"
    )

    def __init__(self, function: str, losses: int, cause: str) -> None:
        Exception.__init__(self, function, losses, cause)
        self.function = function
        self.losses = losses
        self.cause = cause

    def sentence(self) -> str:
        """Which function lost the input, how often and why."""
        deaths = (
            "the container died" if self.losses == 1 else f"{self.losses} containers died one after another"
        )
        return f"an input of {self.function} is lost: {deaths} while running it ({self.cause})"


class ContainerStartError(Error):
    """No container of the function can start. The input never ran.

    Attributes:
        function: The function's name.
        reason: What failed: importing the module, an enter hook, or finding a node.
        remote_traceback: The traceback in the container, or None where no user code failed.
    """

    hint = (
        'containers get packages with runtime_env={"pip": [...]}; where no node has room ask for less with '
        "cpu=, memory= or gpu=; where starting takes longer raise startup_timeout="
    )

    def __init__(self, function: str, reason: str, remote_traceback: str | None = None) -> None:
        Exception.__init__(self, function, reason, remote_traceback)
        self.function = function
        self.reason = reason
        self.remote_traceback = remote_traceback

    def sentence(self) -> str:
        """Which function's containers do not start and why, followed by the remote traceback."""
        message = f"no container of {self.function} can start: {self.reason}"
        return _with_traceback(message, self.remote_traceback)


class SerializationError(Error):
    """A function, an argument or a result cannot be packed. The message names it and its type."""


class DeserializationError(SerializationError):
    """A value cannot be unpacked in this process. The message names the missing module or the type."""


class OutputExpiredError(Error):
    """The results of the call are no longer kept.

    Attributes:
        call_id: The call's id.
        kept_days: For how many days results are kept.
    """

    hint = "fetch results sooner, or store them from inside the function"

    def __init__(self, call_id: str, kept_days: float = 7) -> None:
        Exception.__init__(self, call_id, kept_days)
        self.call_id = call_id
        self.kept_days = kept_days

    def sentence(self) -> str:
        """Which call's results are gone, and how long they are kept."""
        return f"the results of {self.call_id} are gone: they are kept for {self.kept_days:g} days"


def _with_traceback(message: str, remote_traceback: str | None) -> str:
    if not remote_traceback:
        return message
    return f"{message}\n\nRemote traceback:\n{remote_traceback.rstrip()}"
