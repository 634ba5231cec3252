"""FlexRay: serverless containers on a Ray cluster of your own.

import flexray

app = flexray.App("squares")

@app.function(max_containers=4)
def square(x):
return x * x

with app.run():
print(list(square.map(range(10))))
"""

from flexray import lookup as _lookup  # noqa: F401  # It adds from_name.
from flexray.app import App
from flexray.call import FunctionCall, InputInfo
from flexray.cls import Cls
from flexray.config import Limits, Retries
from flexray.context import current_attempt, current_function_call_id, current_input_id, is_local
from flexray.decorators import batched, concurrent, enter, exit, method, parameter  # noqa: A004
from flexray.errors import (
    ContainerStartError,
    DeserializationError,
    Error,
    ExecutionError,
    FunctionTimeoutError,
    InputCancelledError,
    InputLostError,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    ResourceExhaustedError,
    SerializationError,
)
from flexray.function import Function
from flexray.schedule import Cron, Period

__version__ = "0.1.0"

__all__ = [
    "App",
    "Cls",
    "ContainerStartError",
    "Cron",
    "DeserializationError",
    "Error",
    "ExecutionError",
    "Function",
    "FunctionCall",
    "FunctionTimeoutError",
    "InputCancelledError",
    "InputInfo",
    "InputLostError",
    "InvalidError",
    "Limits",
    "NotFoundError",
    "OutputExpiredError",
    "Period",
    "ResourceExhaustedError",
    "Retries",
    "SerializationError",
    "batched",
    "concurrent",
    "current_attempt",
    "current_function_call_id",
    "current_input_id",
    "enter",
    "exit",
    "is_local",
    "method",
    "parameter",
]
