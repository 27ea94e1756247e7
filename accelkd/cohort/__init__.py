"""Participants, survey targets and the stratified split."""
