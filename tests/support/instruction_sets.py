"""The instruction sets of this processor that the signal processing knows."""

from __future__ import annotations

from typing import Literal, get_args

import rust_dsp

InstructionSet = Literal["portable", "avx2", "avx512"]


def instruction_sets() -> list[InstructionSet]:
    names: list[InstructionSet] = []
    for name in get_args(InstructionSet):
        try:
            rust_dsp.Plan(ppg_rate_hz=64, instruction_set=name)
        except ValueError:
            continue
        names.append(name)
    return names
