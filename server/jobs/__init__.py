"""The life of a run: its model, its queue, its engine, its stages and its events."""
