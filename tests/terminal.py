"""What a command shows on a real terminal, frame by frame, and a picture of a frame."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text
from shoal_command import COMMAND, environment

COLUMNS, LINES = 120, 50
# A panel that is drawn anew goes up over its lines and clears them.
REDRAWN = re.compile(r"(?:\r|\x1b\[\d*A|\x1b\[2K)+(?=[^\n])")
# The picture's format names a font of a CDN, which a page that works offline cannot load.
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def frames_of(*words: str | Path, columns: int = COLUMNS, **settings: str) -> list[str]:
    """Run a command on a terminal to its end, and give what the screen showed, in order."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    surroundings = environment(TERM="xterm-256color", **settings)
    del surroundings["COLUMNS"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, env=surroundings,
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # So Linux says that nobody holds the other end.
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    text = re.sub(r"\x1b\[\?\d+[hl]", "", shown.decode()).replace("\r\n", "\n")
    return [frame for frame in REDRAWN.split(text) if frame.strip()]


def picture_of(frame: str, command: str) -> str:
    """Draw a frame below its command, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(frame.strip("\n")), soft_wrap=False)
    return console.export_svg(
        title="shoal", theme=DIMMED_MONOKAI, code_format=SVG_FORMAT, unique_id="shoal"
    )
