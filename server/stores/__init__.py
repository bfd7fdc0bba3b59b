"""Where jobs are kept: one protocol (`base`), SQLite by default, MongoDB when configured."""
