"""Which pair of encoders is promoted and why, and who was in a checkpoint's training set."""
