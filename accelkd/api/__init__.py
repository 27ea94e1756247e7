"""The public functions, exported by `accelkd` itself: arrays in, arrays out, and a home to read."""
