"""The exceptions of `flexray.errors` under the name that ported programs import."""

from __future__ import annotations

from flexray.errors import ContainerStartError as ContainerStartError
from flexray.errors import DeserializationError as DeserializationError
from flexray.errors import Error as Error
from flexray.errors import ExecutionError as ExecutionError
from flexray.errors import FunctionTimeoutError as FunctionTimeoutError
from flexray.errors import InputCancelledError as InputCancelledError
from flexray.errors import InputLostError as InputLostError
from flexray.errors import InvalidError as InvalidError
from flexray.errors import NotFoundError as NotFoundError
from flexray.errors import OutputExpiredError as OutputExpiredError
from flexray.errors import ResourceExhaustedError as ResourceExhaustedError
from flexray.errors import SerializationError as SerializationError
