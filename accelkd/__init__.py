"""accelkd: raw wrist recordings to health-relevant embeddings, distilled from PPG to accelerometry."""

__version__ = "0.1.0"
