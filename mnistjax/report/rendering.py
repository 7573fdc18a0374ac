"""Rendering a page: one file that opens from disk, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any


def render(
    template: str,
    facts: Mapping[str, Any],
    *,
    styles: Sequence[str] = ("report.css",),
    scripts: Sequence[str],
) -> str:
    """Renders a page; every text in it is escaped.

    Args:
        template: name of the template, which extends `base.html.j2`.
        facts: what the template names.
        styles: names of the style sheets, which are put into the page one after the other.
        scripts: names of the scripts, which are put into the page one after the other.

    Returns:
        The page. Its Content-Security-Policy allows these styles and scripts and embedded images.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mnistjax.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": lambda share, digits: f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%",
        "thousands": lambda count: f"{count:,}",
        "seconds": name_seconds,
    }
    style = "".join(environment.get_template(name).render() for name in styles)
    code = "".join(environment.get_template(name).render() for name in scripts)
    return environment.get_template(template).render(
        **facts,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(code),
        script_hash=_hash(code),
    )


def name_seconds(seconds: float) -> str:
    """Formats a duration.

    >>> [name_seconds(seconds) for seconds in (0.84, 28.4, 200.0)]
    ['0.8 s', '28.4 s', '3 min 20 s']
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _hash(text: str) -> str:
    """Returns the hash that allows an inline style or script in a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
