"""Pages that work without a network: one file with its styles, its data and its scripts.

What comes from documents reaches a page in two ways only: through a template, which escapes it,
or as JSON that scripts put in as text. The page's own policy forbids every request and every
script but the ones it was written with, so that a slip in either would still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup
from numpy.typing import NDArray

from server.errors import PreconditionError
from server.views.colors import DARK, LIGHT, NOISE_DARK, NOISE_LIGHT

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    # WebGL drawing compiles its own small functions.
    "script-src 'unsafe-eval' {hashes}"
)


class PicturesNotInstalledError(PreconditionError):
    """A picture needs a library of the extra `viz`, which is not installed here."""

    reason = "PICTURES_NOT_INSTALLED"

    @classmethod
    def of(cls, library: str) -> PicturesNotInstalledError:
        """Say which one."""
        return cls(f"pictures need {library}: pip install 'shoal[viz]' where this runs")


def render_page(
    template: str, scripts: Sequence[str], data: Mapping[str, Any], **words: Any
) -> str:
    """Write a page.

    Parameters
    ----------
    template : str
        Name of a template; it extends ``page.html``.
    scripts : sequence of str
        Names of our scripts, in their order; plotly's stands before them.
    data : mapping
        What the scripts show, as JSON.
    **words
        What the template shows.
    """
    code = [plotly_script(), *(_template_text(name) for name in scripts)]
    palettes = {
        "light": {"groups": LIGHT, "noise": NOISE_LIGHT},
        "dark": {"groups": DARK, "noise": NOISE_DARK},
    }
    return (
        _environment()
        .get_template(template)
        .render(
            policy=POLICY.format(hashes=" ".join(f"'sha256-{_digest(text)}'" for text in code)),
            styles=Markup(_template_text("page.css")),
            scripts=[Markup(text) for text in code],
            data=Markup(_json_in_html({**data, "palettes": palettes})),
            **words,
        )
    )


@cache
def plotly_script() -> str:
    """Give plotly's own script, whole, in the form that browsers load fastest.

    Raises
    ------
    PicturesNotInstalledError
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise PicturesNotInstalledError.of("plotly") from error
    return compiled_at_once(get_plotlyjs())


def compiled_at_once(script: str) -> str:
    """Put the function that is a bundle's only argument in brackets.

    A function in brackets is compiled when it is read. One without is only scanned, and read
    again when it is called, a moment later: with plotly's 4.8 MB a fifth of a page's opening.
    A script of another form is given back as it is.
    """
    match = re.fullmatch(r"(.{,999}?, )(\(\) => \{\n.*\})(\)\);?\s*)", script, re.DOTALL)
    return script if match is None else "{}({}){}".format(*match.groups())


def packed(values: NDArray[Any]) -> str:
    """Give numbers as the text that a typed array is read from."""
    return base64.b64encode(values.tobytes()).decode("ascii")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment


def _template_text(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


@cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _json_in_html(data: Mapping[str, Any]) -> str:
    """Write JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
