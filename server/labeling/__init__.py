"""Names for groups. Never fails a run."""
