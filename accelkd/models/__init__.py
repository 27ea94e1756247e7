"""Encoders, projection heads and their named sizes."""
