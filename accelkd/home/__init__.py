"""One home: its layout, settings, files, locks, identifiers, worker processes."""
