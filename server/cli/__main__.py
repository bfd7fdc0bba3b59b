"""`python -m server.cli`: the same as the command `shoal`, for children of this process."""

from server.cli.main import app

app(prog_name="shoal")
