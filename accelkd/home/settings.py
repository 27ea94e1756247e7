"""What one home is set to: the few choices that change its numbers, kept in `settings.json` beside its data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from accelkd.home.files import write_json
from accelkd.home.layout import Home

MotionGate = Literal["strict", "loose", "off"]
PresetName = Literal["paper", "demo", "smoke"]


@dataclass(frozen=True)
class Settings:
    """Defaults are the paper's values where it gives them."""

    preset: PresetName = "paper"  # of accelkd.training.presets: model sizes, schedules, batch sizes
    motion_gate: MotionGate = "strict"  # 95th percentile (strict) or median (loose) of the motion below 0.05 g
    hop_s: float = 60.0  # from one window of a recording to the next
    split_seed: int = 0
    test_fraction: float = 0.2  # of the participants (paper, section 4.1)
    retrain_after_participants: int = 0  # new in the split since the last training; 0: only once a week

    @classmethod
    def load(cls, home: Home) -> Settings:
        """The settings of a home, or the defaults where it has none. Raises TypeError for an unknown setting."""
        path = home.root / "settings.json"
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()

    def save(self, home: Home) -> None:
        write_json(home.root / "settings.json", asdict(self))
