"""Embedding extraction, probes, retrieval, projections, figures and reports."""
