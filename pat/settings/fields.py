"""What settings are made of: their base class, and the numbers that they hold. Knows nothing of what the settings are for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from pat.settings.formats import ALIGN_NAMES, aligned_to
from pat.settings.limits import LARGEST_FACTOR, LARGEST_SEED, MOST, MOST_THREADS

EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def _number(value: object) -> object:
    """Return text like 1e-3 as the number that is meant: YAML 1.1 reads it as text, because it lacks a dot."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def is_none(value: object) -> bool:
    """Return whether a setting is not used: one that came later then leaves records and their hashes as they were."""
    return value is None


def equals(default: object) -> Callable[[object], bool]:
    """Return the same question about a setting whose default is not None."""
    return lambda value: value == default


Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, Field(gt=0, le=MOST)]
NAMED_COUNT = {"anyOf": [{"exclusiveMinimum": 0, "maximum": MOST, "type": "integer"}, {"enum": ["auto", *ALIGN_NAMES], "type": "string"}]}
Align = Annotated[Count | Literal["auto"], BeforeValidator(aligned_to), WithJsonSchema(NAMED_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Threads = Annotated[int, Field(gt=0, le=MOST_THREADS, description="threads that torch works with; numbers depend on it")]
SeedNumber = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Rate = Annotated[Number, Field(gt=0, le=LARGEST_FACTOR, allow_inf_nan=False)]
Weight = Annotated[Number, Field(ge=0, le=LARGEST_FACTOR, allow_inf_nan=False)]
Precision = Annotated[Literal["fp32", "bf16"], Field(description="arithmetic of the model")]
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}
"""Of a number, by precision."""
GIB, MIB = 2**30, 2**20
"""Bytes."""
FP32_BYTES = 4 * GIB
"""Weights up to this size are checked and measured in fp32, larger ones in their own dtype: that needs no more memory than loading them."""
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="where it runs; auto: on a GPU where there is one")]


CONTRADICTION = "contradiction"
"""The type of errors that say that a value does not go together with others."""
OF_THE_WHOLE = ("missing", "value_error", CONTRADICTION)
"""Pydantic's types of errors that say nothing of a single value."""


@dataclass(frozen=True)
class PartOf:
    """Marks a block that is laid over others as a part of `model`, which the schema of the file tells.

    Its values have to make sense by themselves, also those that another block overrides. What it lacks, and what does not go together,
    shows when all are joined.
    """

    model: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._each_value, handler(source))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)

    def _each_value(self, written: dict[str, object]) -> dict[str, object]:
        try:
            self.model.model_validate(written)
        except ValidationError as error:
            found = [
                InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))
                for detail in error.errors()
                if detail["type"] not in OF_THE_WHOLE
            ]
            if found:
                raise ValidationError.from_exception_data(error.title, found) from None
        return written


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values never change after checking, and 3 is not taken for "3" or true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
