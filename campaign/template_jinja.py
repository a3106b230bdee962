"""Templates named ``*.j2``: Jinja first, YAML after, and nothing of the one can break the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from campaign.template_yaml import MAX_BYTES

_SAFE: Final = re.compile(r"[A-Za-z0-9_.+-]*", re.ASCII)
_EXPANDED: Final = re.compile(r"[${]|<ENV:")


class _Quoted(str):
    """Text that is already a YAML scalar."""

    __slots__ = ()


def quote(value: Any) -> str:
    """Write a value as a double-quoted YAML scalar on one line, whatever it holds: the filter ``yaml``.

    Raises
    ------
    ValueError
        It holds what would be expanded afterwards, or no text at all.
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
    """Let through only what cannot change the YAML around it."""
    from jinja2 import Undefined

    if isinstance(value, (_Quoted, Undefined)) or _SAFE.fullmatch(str(value)):
        return value
    raise ValueError(f"{str(value)[:40]!r} must be written with the filter yaml: {{{{ ... | yaml }}}}")


def render(text: str, band: str, environment: Mapping[str, str]) -> str:
    """Run a template's text through Jinja: sandboxed, undefined names refused, values quoted or harmless.

    Parameters
    ----------
    text : `str`
        The source; it may use ``band`` and ``environment``.
    band : `str`
        Undefined where empty.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables.

    Raises
    ------
    ValueError
        It cannot be rendered, or becomes too large.
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
