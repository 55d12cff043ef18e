"""Settings that are checked when they are made: pydantic's checks, told in one line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lth.errors import UsageError


class Checked(BaseModel):
    """A frozen record; raises UsageError, in one line that names the field, for values that do not fit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(self._told(error)) from error

    def __setattr__(self, name: str, value: Any) -> None:
        raise UsageError(f"{type(self).__name__} cannot be changed: x.model_copy(update={{{name!r}: …}}) makes another")

    @classmethod
    def _told(cls, error: ValidationError) -> str:
        """The first thing that is wrong, in one line."""
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if not first["loc"]:
            return message
        name = str(first["loc"][0])
        if name not in cls.model_fields:
            return f"{cls.__name__} has no {name}: it has {', '.join(cls.model_fields)}"
        meaning = cls.model_fields[name].description
        meaning = f". It is: {meaning}" if meaning else ""
        if first["type"] == "missing":
            return f"{cls.__name__} needs {name}{meaning}"
        return f"{name}={first['input']}: {message}{meaning}"
