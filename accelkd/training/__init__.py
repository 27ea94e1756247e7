"""Pre-training of the PPG teacher and distillation into the accelerometer student."""
