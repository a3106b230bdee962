"""Renders templates named ``*.j2``: Jinja first, YAML after, and neither can break the other.

A template that is not packaged is rendered in a process with limits of time and
memory: ``{{ 'a' * 10**10 }}`` ends that process, and not the machine.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from campaign.documents import MAX_BYTES

_SAFE: Final = re.compile(r"[A-Za-z0-9_.+-]*", re.ASCII)
_EXPANDED: Final = re.compile(r"[${]|<ENV:")
MOST_CPU_S: Final = 2
"""Time that a template may take to be rendered, second."""
MOST_MEMORY: Final = 1 << 29
"""Memory that it may take, byte."""


class _Quoted(str):
    """Text that already is a YAML scalar."""

    __slots__ = ()


def quote(value: Any) -> str:
    """Write any value as a double-quoted YAML scalar on one line: the filter ``yaml``.

    Raises
    ------
    ValueError
        The value holds text that would be expanded afterwards, or is no text.
    """
    text = str(value)
    if _EXPANDED.search(text):
        raise ValueError(f"{text[:40]!r} would be expanded again: write ${{NAME}} in the template instead")
    text.encode()
    return _Quoted('"' + "".join(map(_escape, text)) + '"')


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _finalize(value: Any) -> Any:
    """Pass only values that cannot change the YAML around them."""
    from jinja2 import Undefined

    if isinstance(value, (_Quoted, Undefined)) or _SAFE.fullmatch(str(value)):
        return value
    raise ValueError(f"{str(value)[:40]!r} must be written with the filter yaml: {{{{ ... | yaml }}}}")


def render(text: str, band: str, environment: Mapping[str, str]) -> str:
    """Render a template's text with Jinja: sandboxed, undefined names refused, values quoted or harmless.

    Parameters
    ----------
    text : `str`
        Source; may use ``band`` and ``environment``.
    band : `str`
        Band; undefined in the template where empty.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables.

    Raises
    ------
    ValueError
        The text cannot be rendered, or becomes too large.
    """
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    jinja = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_finalize, keep_trailing_newline=True)
    jinja.filters["yaml"] = quote
    values: dict[str, Any] = {"environment": dict(environment), **({"band": band} if band else {})}
    pieces, left = [], MAX_BYTES
    try:
        for piece in jinja.from_string(text).generate(values):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise ValueError(f"renders to more than {MAX_BYTES >> 20} MiB")
    except TemplateError as error:
        line = f" line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        hint = "; ask for one band, as in bps_flat_g.yaml" if "'band' is undefined" in str(error.message) else ""
        raise ValueError(f"Jinja{line}: {error.message or type(error).__name__}{hint}") from error
    except (TypeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"Jinja: {error}") from error
    return "".join(pieces)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def render_apart(text: str, band: str, environment: Mapping[str, str]) -> str:
    """Render as `render` does, within limits of time and memory.

    Raises
    ------
    ValueError
        The text cannot be rendered, becomes too large, or exceeds the limits.
    """
    line = [sys.executable, "-P", "-m", __name__]
    plain = json.dumps([text, band, dict(environment)])
    done = subprocess.run(line, input=plain, capture_output=True, text=True, preexec_fn=_limit)
    if done.returncode:
        raise ValueError(f"Jinja: it takes more than {MOST_CPU_S} s or {MOST_MEMORY >> 20} MiB to render")
    answer: dict[str, str] = json.loads(done.stdout)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["text"]


def _main() -> None:
    try:
        answer = {"text": render(*json.loads(sys.stdin.read()))}
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
