"""Where the accelerometer sits, and what one heartbeat looks like there.

Wrist: the ballistocardiogram's waves H to M (Starr et al., Am J Physiol 1939, 127:1; Inan et al., IEEE J Biomed Health
Inform 2015, 19:1414). Chest: the seismocardiogram's mitral closure, isovolumic movement, aortic opening, rapid
ejection, aortic closure and mitral opening (Zanetti & Tavakolian, IEEE EMBC 2013), earlier and narrower.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Six waves after each R peak: instants, widths, and sizes along a random direction and across it."""

    name: str  # of the simulated devices: sim-<name>-<rate>
    wave_s: tuple[float, ...]  # after the R peak, at a heart rate of 65 bpm and a pre-ejection period of 95 ms
    width_s: tuple[float, ...]
    along: tuple[float, ...]
    across: tuple[float, ...]
    paced: tuple[bool, ...]  # waves that come earlier with stiff arteries and a fast heart
    arterial: bool  # whether age and stiffness of the arteries shape the second and the fourth wave


WRIST = Placement(
    "wrist",
    wave_s=(0.075, 0.135, 0.215, 0.305, 0.395, 0.49),
    width_s=(0.026, 0.026, 0.032, 0.036, 0.042, 0.050),
    along=(0.30, -0.55, 1.0, -0.80, 0.42, -0.22),
    across=(-0.15, 0.45, -0.35, 0.60, -0.45, 0.30),
    paced=(False, False, True, True, True, True),
    arterial=True,
)
CHEST = Placement(
    "chest",
    wave_s=(0.030, 0.060, 0.095, 0.130, 0.370, 0.430),
    width_s=(0.012, 0.013, 0.014, 0.018, 0.015, 0.020),
    along=(0.30, -0.60, 1.0, -0.70, 0.45, -0.30),
    across=(-0.20, 0.35, -0.40, 0.50, -0.30, 0.25),
    paced=(False, False, False, False, True, True),
    arterial=False,
)
