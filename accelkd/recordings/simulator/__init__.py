"""The cohort simulator: participants with known traits, and their raw recordings as a wrist device would make them.

`simulate_batch` writes an arrival batch; docs/simulator.md says which processes are modelled, from which sources, and
what is not realistic.
"""

from accelkd.recordings.simulator.profiles import PROFILES, Profile
from accelkd.recordings.simulator.simulate import simulate_batch

__all__ = ["PROFILES", "Profile", "simulate_batch"]
