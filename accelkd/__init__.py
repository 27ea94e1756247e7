"""accelkd: raw wrist recordings to health-relevant embeddings, distilled from PPG to accelerometry.

    encoder = accelkd.load_encoder("accel_student")
    windows = accelkd.preprocess(accel=accel, rate_hz=50)  # [3, samples] in g
    read = accelkd.predict(encoder, windows)  # heart rate, SDNN, RMSSD of each minute, with 90 % intervals
    embeddings = accelkd.embed(encoder, windows.signals[windows.usable])  # [segments, width]

What `__all__` lists is public; every other module may change with any version.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Before torch loads its thread pool: threads that spin while they wait halve the speed of training as soon as anything
# else runs on the machine (docs/benchmarks.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "OpenHome",
    "Predictions",
    "Windows",
    "embed",
    "load_encoder",
    "open_home",
    "predict",
    "preprocess",
]

if TYPE_CHECKING:
    from accelkd.api.encoders import Encoder, embed, load_encoder
    from accelkd.api.homes import OpenHome, open_home
    from accelkd.api.predictions import Predictions, predict
    from accelkd.api.preprocessing import Windows, preprocess
else:  # a type checker does not see it: it would take any name for an attribute
    _MODULES = {
        "Encoder": "encoders",
        "OpenHome": "homes",
        "Predictions": "predictions",
        "Windows": "preprocessing",
        "embed": "encoders",
        "load_encoder": "encoders",
        "open_home": "homes",
        "predict": "predictions",
        "preprocess": "preprocessing",
    }

    def __getattr__(name):
        """A public name, imported when it is first used (PEP 562): `import accelkd` loads neither torch nor NumPy."""
        if name not in _MODULES:
            raise AttributeError(f"module 'accelkd' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"accelkd.api.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
