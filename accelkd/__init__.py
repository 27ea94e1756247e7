"""accelkd: raw wrist recordings to health-relevant embeddings, distilled from PPG to accelerometry."""

import os

# Before torch loads its thread pool: threads that spin while they wait halve the speed of training as soon as anything
# else runs on the machine (docs/benchmarks.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
