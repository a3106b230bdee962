"""Checks a data query before the Butler does.

The Butler's own message for a doubled ``and`` is a syntax error at a token.
Here a mark under the text shows the place, and a hint gives the probable
meaning.  The grammar is that of daf_butler's expressions, without chains of
comparisons: its parser accepts every query that passes here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NoReturn

MAX_DEPTH: Final = 50
"""Parentheses in each other."""

_TOKEN: Final = re.compile(
    r"""(?P<blank>(?:[ \t\n]|\\?\r?\n)+)
    |(?P<text>[Tt]?'[^'\n]*')
    |(?P<range>-?\d+\s*\.\.\s*-?\d+(?:\s*:\s*[1-9]\d*)?)
    |(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)
    |(?P<dotted>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*){1,2})
    |(?P<name>[A-Za-z_]\w*)
    |(?P<bind>:[A-Za-z_]\w*)
    |(?P<compare>!=|<=|>=|=|<|>)
    |(?P<sign>[-+])
    |(?P<times>[*/%])
    |(?P<left>\()|(?P<right>\))|(?P<comma>,)
    |(?P<wrong>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_CONTINUED: Final = re.compile(r"(?P<text>'[^'\n]*')|[ \t]*\\?\r?\n\s*")
_VARIABLE: Final = re.compile(r"\$[{A-Za-z_]")
_WORDS: Final = {"and": "join", "or": "join", "not": "not", "in": "in", "overlaps": "compare"}
_ADVICE: Final = {
    "'": "a quote that is not closed",
    '"': "write texts in single quotes",
    "$": "a variable that the shell has not filled in: export the selection in double quotes",
    "\\": "a backslash that does not end a line",
}
_MARGIN: Final = 36
"""Characters shown on either side of the place."""


@dataclass(frozen=True)
class QueryProblem:
    """Mistake in a query."""

    #: The mistake.
    what: str
    #: Offset in the text, characters.
    position: int
    #: Fragment of the query, and a line with ``^`` under the place.
    shown: str

    def __str__(self) -> str:
        return f"{self.what}\n{self.shown}"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Mistake(Exception):
    def __init__(self, what: str, token: _Token) -> None:
        super().__init__(what)
        self.token = token


def join_lines(text: str) -> str:
    """Put a query on one line: line ends outside quotes, with or without a backslash, become one blank."""
    return _CONTINUED.sub(lambda match: match["text"] or " ", text).strip()


def check_expression(text: str) -> list[QueryProblem]:
    """Find mistakes in a data query, which may hold line continuations; none where the Butler's parser accepts it."""
    tokens = _tokens(text)
    found = [*_characters(tokens), *_parentheses(tokens), *_joins(tokens)]
    if not found and tokens:
        try:
            _Parser(text, tokens).query()
        except _Mistake as mistake:
            found = [(str(mistake), mistake.token)]
    unique = {
        token.position: QueryProblem(what, token.position, _show(text, token.position))
        for what, token in reversed(found)
    }
    return [unique[position] for position in sorted(unique)]


def instruments(text: str) -> set[str]:
    """List the names that a query compares ``instrument`` with (``=`` or ``in``)."""
    tokens = _tokens(text)
    found = set()
    for k, token in enumerate(tokens):
        following = [t.text for t in tokens[k + 1 : k + 3]]
        before = [t.text for t in tokens[max(0, k - 2) : k]]
        if token.text.lower() != "instrument":
            continue
        if following[:1] == ["="]:
            found.add(following[-1])
        elif before[-1:] == ["="]:
            found.add(before[0])
        elif [word.lower() for word in following] == ["in", "("]:
            end = next((n for n in range(k + 3, len(tokens)) if tokens[n].kind == "right"), len(tokens))
            found |= {t.text for t in tokens[k + 3 : end]}
    return {name[1:-1] for name in found if name.startswith("'")}


def splits(text: str) -> bool:
    """Whether a query has an ``or`` outside parentheses: an appended ``and`` would apply to its last part only."""
    depth = 0
    for token in _tokens(text):
        depth += (token.kind == "left") - (token.kind == "right")
        if depth == 0 and token.text.lower() == "or":
            return True
    return False


def _tokens(text: str) -> list[_Token]:
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "wrong"
        if kind == "name":
            kind = _WORDS.get(match[0].lower(), "name")
        if kind != "blank":
            tokens.append(_Token(kind, match[0], match.start()))
    return tokens


def _show(text: str, position: int) -> str:
    begin = max(0, position - _MARGIN)
    # One blank for each character keeps the mark under its place.
    fragment = re.sub(r"\s", " ", text[begin : position + _MARGIN])
    before, after = "..." * (begin > 0), "..." * (position + _MARGIN < len(text))
    return f"    {before}{fragment}{after}\n    {' ' * (len(before) + position - begin)}^"


def _characters(tokens: list[_Token]) -> list[tuple[str, _Token]]:
    """Find characters outside the grammar; text after an open quote is not searched."""
    found = []
    for token, following in pairwise([*tokens, None]):
        assert token is not None
        if token.kind == "wrong":
            found.append((_ADVICE.get(token.text, f"{token.text!r} has no meaning here"), token))
            if token.text in "'\"":
                break
        elif token.kind == "text" and _VARIABLE.search(token.text):
            found.append((_ADVICE["$"], token))
        elif token.text == "=" and following and following.text == "=" and following.position == token.position + 1:
            found.append(("a single = compares", following))
    return found


def _parentheses(tokens: list[_Token]) -> list[tuple[str, _Token]]:
    opened: list[_Token] = []
    for token in tokens:
        if token.kind == "left":
            opened.append(token)
        elif token.kind == "right" and not opened:
            return [("a parenthesis is closed that was not opened", token)]
        elif token.kind == "right":
            opened.pop()
        if len(opened) > MAX_DEPTH:
            return [(f"more than {MAX_DEPTH} parentheses in each other", token)]
    return [("a parenthesis that is not closed", token) for token in opened[-1:]]


def _joins(tokens: list[_Token]) -> list[tuple[str, _Token]]:
    """Find ``and`` and ``or`` that join nothing."""
    found = []
    for before, token in pairwise([None, *tokens, None]):
        if token and token.kind == "join" and (before is None or before.kind in ("join", "left", "not")):
            what = f"'{before.text} {token.text}'" if before else f"nothing before '{token.text}'"
            found.append((what if before is None or before.kind != "left" else f"nothing before '{token.text}'", token))
        elif before and before.kind in ("join", "not") and (token is None or token.kind == "right"):
            found.append((f"nothing after '{before.text}'", before))
    return found


class _Parser:
    """Parses the grammar by recursive descent; raises `_Mistake` at the first token that does not fit."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.tokens = [*tokens, _Token("end", "the end", len(text.rstrip()))]
        self.at = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *kinds: str) -> bool:
        taken = self.token.kind in kinds
        self.at += taken
        return taken

    def fail(self, wanted: str) -> NoReturn:
        raise _Mistake(f"{wanted} was expected, not {self.token.text}", self.token)

    def query(self) -> None:
        """Parse a whole query."""
        self.expression()
        if self.token.kind != "end":
            self.fail("'and', 'or' or a comparison")

    def expression(self) -> None:
        """Parse comparisons joined by ``and`` and ``or``."""
        while True:
            while self.take("not"):
                pass
            self.predicate()
            if self.take("compare"):
                self.predicate()
                if self.token.kind == "compare":
                    raise _Mistake("comparisons cannot be chained: join two of them with 'and'", self.token)
            if not self.take("join"):
                return

    def predicate(self) -> None:
        """Parse one side of a comparison, or a membership."""
        self.sum()
        following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        if self.take("in") or (self.token.kind == "not" and following.kind == "in"):
            self.at += self.tokens[self.at - 1].kind != "in" and 2
            self.members()

    def members(self) -> None:
        """Parse the list after ``in``."""
        if not self.take("left"):
            self.fail("after 'in' a list in parentheses, as in (1, 2) or (1..9),")
        while True:
            signed = self.take("sign")
            if signed and not self.take("number"):
                self.fail("a number")
            if not signed and not self.call() and not self.take("text", "number", "range", "name", "bind"):
                self.fail("a number, a text or a range")
            if not self.take("comma"):
                break
        if not self.take("right"):
            self.fail("a comma or a closing parenthesis")

    def sum(self) -> None:
        """Parse values joined by operators."""
        self.value()
        while self.take("sign", "times"):
            self.value()

    def call(self) -> bool:
        """Parse a function call; tell whether there is one."""
        if self.token.kind != "name" or self.tokens[self.at + 1].kind != "left":
            return False
        self.at += 2
        while self.token.kind != "right":
            self.expression()
            if not self.take("comma"):
                break
            if self.token.kind == "right":
                self.fail("a value")
        if not self.take("right"):
            self.fail("a comma or a closing parenthesis")
        return True

    def value(self) -> None:
        """Parse a literal, a name, a call or an expression in parentheses."""
        while self.take("sign"):
            pass
        if self.call() or self.take("text", "number", "name", "dotted", "bind"):
            return
        if self.token.kind == "range":
            raise _Mistake("a range belongs into a list: in (1..9)", self.token)
        if not self.take("left"):
            self.fail("a value")
        self.expression()
        if self.take("comma"):
            self.expression()
        if not self.take("right"):
            self.fail("a closing parenthesis")
