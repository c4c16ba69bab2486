"""Types of the fields of a configuration: allowed values, and how an error describes them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from hetsyn_triton.experiments.tasks.options import choice, is_real

from .distributions import EXPECTED as DISTRIBUTION, is_distribution

MOST_LAYERS = 1000
MOST_THREADS = 1024  # of a run from any machine; PyTorch aborts with far more


@dataclass(frozen=True, eq=False)
class Expected:
    """Describes in an error what a field allows; an allowed value stays as it was given.

    Attributes:
        phrase: Text after "expected", or a function that returns it.
        allows: Checks what the type cannot.
        names: The allowed names of a field that is a name.
    """

    phrase: str | Callable[[], str]
    allows: Callable[[Any], bool] = lambda value: True
    names: Collection[str] = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | ({"enum": list(self.names)} if self.names else {})

    def _checked(self, value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            inner(value)
            if self.allows(value):
                return value
        except ValidationError:
            pass
        phrase = self.phrase if isinstance(self.phrase, str) else self.phrase()
        context = {"phrase": phrase, "names": tuple(self.names)}
        raise PydanticCustomError("expected", "expected {phrase}", context)


def one_of(names: Collection[str]) -> Expected:
    """Allow one of `names`, read when a value is checked because tasks can be registered."""
    return Expected(lambda: choice("", names).expected, lambda value: value in names, names)


def _devices() -> str:
    """Return the devices of this machine, for a message."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return "cpu because PyTorch finds no GPU"
    return ", ".join(["cpu", "cuda", *(f"cuda:{number}" for number in range(count))])


def _device_is_here(value: str) -> bool:
    try:
        device = torch.device(value)
    except RuntimeError:
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu"


Flag = Annotated[bool, Expected("true or false")]
Count = Annotated[int, Field(gt=0, lt=2**31), Expected("a positive integer below 2^31")]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31), Expected("an integer from 0 to below 2^31")]
Seed = Annotated[int, Field(ge=0, lt=2**63), Expected("an integer from 0 to 2^63 - 1")]
Threads = Annotated[
    int, Field(ge=1, le=MOST_THREADS), Expected(f"an integer from 1 to {MOST_THREADS}")
]
Positive = Annotated[float, Field(gt=0), Expected("a positive number", is_real)]
StepLength = Annotated[
    float, Field(gt=0, le=1e30), Expected("a positive number of at most 1e30", is_real)
]
NotNegative = Annotated[float, Field(ge=0), Expected("a number of at least 0", is_real)]
Fraction = Annotated[float, Field(ge=0, le=1), Expected("a number from 0 to 1", is_real)]
Part = Annotated[float, Field(ge=0, lt=1), Expected("a number from 0 to below 1", is_real)]
Factor = Annotated[float, Field(gt=0, le=1), Expected("a number above 0, at most 1", is_real)]
Folder = Annotated[str, Field(min_length=1), Expected("a folder's name")]
Device = Annotated[str, Expected(_devices, lambda value: _device_is_here(value))]
TimeConstants = Annotated[
    str | float, Expected(f"positive time constants: {DISTRIBUTION}", is_distribution)
]
Sizes = Annotated[
    tuple[Count, ...],
    Field(min_length=1, max_length=MOST_LAYERS),
    Expected(f"1 to {MOST_LAYERS} positive integers below 2^31"),
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]
Options = Annotated[dict[str, Any], Expected("an object with settings of the task")]
