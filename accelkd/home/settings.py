"""What one home is set to: the few choices that change its numbers, kept in `settings.json` beside its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

from annotated_types import Ge, Gt, Lt

from accelkd.home.files import write_json
from accelkd.home.layout import Home

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MotionGate = Literal["strict", "loose", "off"]
PresetName = Literal["paper", "demo", "scratch", "night", "smoke"]


@dataclass(frozen=True)
class Settings:
    """Defaults are the paper's values where it gives them. Raises ValueError for a value that breaks its rule."""

    preset: PresetName = "paper"  # of accelkd.training.presets: model sizes, schedules, batch sizes
    motion_gate: MotionGate = "strict"  # 95th percentile (strict) or median (loose) of the motion below 0.05 g
    hop_s: Annotated[float, Ge(0.1)] = 60.0  # from one window of a recording to the next; rust_dsp takes 0.1 s or more
    split_seed: Annotated[int, Ge(0)] = 0
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2  # of the participants (paper, section 4.1)
    retrain_after_participants: Annotated[int, Ge(0)] = 0  # new since the last training; 0: only once a week
    expected_arrival_days: Annotated[int, Ge(0)] = (
        0  # between deliveries, beyond which they are overdue; 0: none expected
    )
    keep_runs_days: Annotated[int, Ge(0)] = 90  # in Dagster's history, unless their results are the latest; 0: for ever

    def __post_init__(self) -> None:
        # The defaults hold, and need no Pydantic: a bare GPU machine has none
        if any(getattr(self, field.name) is not field.default for field in fields(self)):
            _check(vars(self))

    @classmethod
    def load(cls, home: Home) -> Settings:
        """The settings of a home, or the defaults where it has none.

        Raises ValueError that names the file for one that is no JSON object, an unknown setting or a value that breaks
        its rule.
        """
        path = home.root / "settings.json"
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"a JSON object is expected, not {json.dumps(content)}")
            known = [field.name for field in fields(cls)]
            if unknown := [name for name in content if name not in known]:
                raise ValueError(f"there is no setting {unknown[0]!r}; there are {', '.join(known)}")
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, home: Home) -> None:
        write_json(home.root / "settings.json", asdict(self))


def _check(values: Mapping[str, object]) -> None:
    """Raise ValueError that names setting, value and rule where a value is not of its type or out of its range."""
    from pydantic import ValidationError

    for name, rule in _rules().items():
        try:
            rule.validate_python(values[name])
        except ValidationError as error:
            message = error.errors()[0]["msg"].replace("Input should be", "must be")
            raise ValueError(f"{name} = {values[name]!r}: {message}") from None


@cache
def _rules() -> dict[str, TypeAdapter[object]]:
    from pydantic import ConfigDict, TypeAdapter  # a tenth of a second

    strict = ConfigDict(strict=True, allow_inf_nan=False)
    hints = get_type_hints(Settings, include_extras=True)
    return {name: TypeAdapter(hint, config=strict) for name, hint in hints.items()}
