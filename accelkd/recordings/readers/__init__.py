"""Readers of device formats, one module a device."""
