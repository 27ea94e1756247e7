"""Which encoders are promoted and why, and who was in a checkpoint's training set."""
