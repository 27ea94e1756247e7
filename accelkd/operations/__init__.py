"""Use cases over a home: what an asset and a command both call."""
