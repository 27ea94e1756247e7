"""Recordings to 60 s segments, with labels and quality, and the store that holds them."""
