"""Types of arguments: what commands ask for, and which rule it obeys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from accelkd.home.layout import Home

OpenedHome = Annotated[Home, Parameter(parse=False)]  # by `accelkd --home`
CommandLine = Annotated[list[str], Parameter(parse=False)]  # all that was typed after `accelkd`


def _whole_number(_: object, tokens: Sequence[Token]) -> int:
    """Cyclopts alone would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number.") from None


def _is_device(_: object, name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("Must be auto, cpu or cuda.")


WholeNumber = Annotated[int, Parameter(converter=_whole_number)]
AtLeastOne = Annotated[WholeNumber, Parameter(validator=Number(gte=1))]
NotNegative = Annotated[WholeNumber, Parameter(validator=Number(gte=0))]
Positive = Annotated[float, Parameter(validator=Number(gt=0))]
DeviceName = Annotated[str, Parameter(validator=_is_device)]
several = Parameter(consume_multiple=1, negative=(), show_default=False)  # one or more values after one option
