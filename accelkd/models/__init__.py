"""Encoders and projection heads: what maps a segment to its embedding."""
