"""Data queries: those accepted are those of the Butler's own parser; mistakes are shown in place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.daf.butler.queries.expressions.parser import parse_expression

from campaign.template.selection import check_expression, instruments, join_lines, splits

# The selections of DMTN-222, section 7, line continuations included.
HEAD = "instrument='LSSTComCam' and \\\n    "
DAYS = (
    "((exposure.day_obs=20241208 and exposure.seq_num >= 696) or \\\n"
    "    (exposure.day_obs=20241206 and exposure.seq_num >=427)) and \\\n    "
)
DMTN_222 = [
    f"{HEAD}{DAYS}exposure.observation_type='bias'",
    f"{HEAD}{DAYS}exposure.observation_type='dark'",
    f"{HEAD}exposure.day_obs=20240806 and exposure.science_program='BLOCK-T68' and \\\n"
    "    exposure.observation_reason='flat' and physical_filter='r_03'",
    f"{HEAD}exposure.day_obs=20241110 and exposure.seq_num in (44..63)",
    f"{HEAD}exposure.day_obs=20241120 and exposure.seq_num in (41..64) and exposure.seq_num != 58",
    f"{HEAD}exposure in (2024120100160,2024120700307,2024120700297,2024120300156,\\\n    2024120700339,2024112000223)",
    # Line ends without a backslash, blanks after commas.
    f"{HEAD}exposure in (2024102100509,2024110800008, 2024111200387, \\\n    2024121000596,\n    2024121100007)",
]
OTHERS = [
    "",
    "instrument='LSSTComCam' and exposure.observation_type='bias' and band='g'",
    "(exposure=1 or exposure=2) and band='g'",
    "not (a = 1) and b not in (1, 2) and c in ('x', y, :z, -3, 1..9:2)",
    "visit > 100 and detector.purpose = 'SCIENCE' OR NOT a",
    "visit.timespan OVERLAPS (T'2020-01-01', T'2020-02-01')",
    "a + 1 = -b * 2 / (c - 1) % 3",
    "visit_detector_region.region OVERLAPS POINT(53.6, -32.7)",
    "id in (UUID('0a1b2c3d-0000-0000-0000-000000000000'))",
    "a = 'it is # and or ( fine'",
    "a = '\u00e5 \u4e2d'",
]


@pytest.mark.parametrize("text", DMTN_222 + OTHERS)
def test_good_queries_pass(text: str) -> None:
    assert check_expression(text) == []
    parse_expression(join_lines(text))


@pytest.mark.parametrize(
    ("text", "mark", "what"),
    [
        ("a=1 and and b=2", 8, "'and and'"),
        ("a=1 or and b=2", 7, "'or and'"),
        ("and a=1", 0, "nothing before 'and'"),
        ("(and a=1)", 1, "nothing before 'and'"),
        ("a=1 and", 4, "nothing after 'and'"),
        ("(a=1 or) and b=1", 5, "nothing after 'or'"),
        ("a=1 and not", 8, "nothing after 'not'"),
        ("a=", 2, "a value was expected"),
        ("(a=1", 0, "not closed"),
        ("a=1)", 3, "not opened"),
        ("a in (1, 2", 5, "not closed"),
        ("a='x", 2, "a quote that is not closed"),
        ("a='x\ny'", 2, "a quote that is not closed"),
        ('a="x"', 2, "single quotes"),
        ("a=b=c", 3, "comparisons cannot be chained"),
        ("1 < a < 3", 6, "comparisons cannot be chained"),
        ("a==1", 2, "a single = compares"),
        ("a in 3", 5, "a list in parentheses"),
        ("a in (1 2)", 8, "a comma or a closing parenthesis"),
        ("a in (1, )", 9, "a number, a text or a range"),
        ("a not 3", 2, "'and', 'or' or a comparison"),
        ("a=1 b=2", 4, "'and', 'or' or a comparison"),
        ("a=1..3", 2, "a range belongs into a list"),
        ("a = $X", 4, "the shell has not filled in"),
        ("instrument='$INSTRUMENT'", 11, "the shell has not filled in"),
        ("a=1 & b=2", 4, "'&' has no meaning here"),
        ("a=1; drop", 3, "';' has no meaning here"),
        ("a\\b=1", 1, "a backslash that does not end a line"),
        ("f(1, ) = 2", 5, "a value was expected"),
    ],
)
def test_bad_queries_are_shown_where(text: str, mark: int, what: str) -> None:
    (problem,) = check_expression(text)
    assert what in problem.what
    assert problem.position == mark
    fragment, caret = problem.shown.splitlines()
    assert caret.strip() == "^"
    column = caret.index("^")
    assert fragment[column : column + 1] == text[mark : mark + 1].replace("\n", " ")


def test_the_ptc_selection_of_dmtn_222() -> None:
    text = (
        "instrument='LSSTComCam' and \\\n    exposure.day_obs=20240806 and \\\n"
        "    and exposure.science_program='BLOCK-T68' and \\\n"
        "    exposure.observation_reason='comcam_ptc' and \\\n    physical_filter='r_03'"
    )
    (problem,) = check_expression(text)
    assert problem.what == "'and and'"
    assert problem.position == text.index("and exposure.science_program")
    fragment, caret = problem.shown.splitlines()
    assert fragment[caret.index("^") :].startswith("and exposure.science_program")


def test_several_mistakes_at_once() -> None:
    assert [problem.position for problem in check_expression("a=1 and and b=2 or or c=3")] == [8, 19]


def test_deep_parentheses_are_refused() -> None:
    (problem,) = check_expression("(" * 100_000 + "a" + ")" * 100_000)
    assert "more than 50 parentheses" in problem.what


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("instrument='A'", {"A"}),
        ("instrument = 'A' and exposure=1", {"A"}),
        ("'B' = instrument", {"B"}),
        ("instrument in ('C', 'D') or INSTRUMENT='E'", {"C", "D", "E"}),
        ("instrument != 'A'", set()),
        ("instrument", set()),
        ("a='instrument=1'", set()),
    ],
)
def test_instruments(text: str, names: set[str]) -> None:
    assert instruments(text) == names


@pytest.mark.parametrize(
    ("text", "loose"),
    [
        ("a or b", True),
        ("(a or b)", False),
        ("(a) OR (b)", True),
        ("a and b", False),
        ("a = ' or '", False),
        ("", False),
    ],
)
def test_a_loose_or(text: str, loose: bool) -> None:
    assert splits(text) is loose


def test_lines_are_joined_outside_quotes_only() -> None:
    assert join_lines("a=1 and \\\n   b='x\\ y'\r\n and c=2\n") == "a=1 and b='x\\ y' and c=2"


PIECES = [
    "a",
    "b.c",
    "1",
    "2.5",
    "'x'",
    "1..9",
    ":v",
    "=",
    "!=",
    "<",
    "+",
    "-",
    "*",
    "(",
    ")",
    ",",
    "and",
    "or",
    "not",
    "in",
    "f",
    "overlaps",
    "$",
    "'",
]


@settings(max_examples=1500)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join))
def test_what_passes_is_what_the_butler_accepts(text: str) -> None:
    if not check_expression(text):
        parse_expression(text)


VALUE = st.sampled_from(["a", "b.c", "1", "-2.5", "'x'", "T'2020-01-01'", ":v", "(a + 1)", "f(1, a)", "a * -b"])
TERM = st.builds("{} {} {}".format, VALUE, st.sampled_from(["=", "!=", "<", ">=", "overlaps"]), VALUE) | st.builds(
    "{} {} ({})".format,
    VALUE,
    st.sampled_from(["in", "not in"]),
    st.lists(st.sampled_from(["1", "'x'", "1..9:2", ":v", "a"]), min_size=1).map(", ".join),
)
QUERY = st.recursive(
    TERM,
    lambda inner: (
        st.builds("({})".format, inner)
        | st.builds("not {}".format, inner)
        | st.builds("{} {} {}".format, inner, st.sampled_from(["and", "OR", "\\\n and"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(QUERY)
def test_what_the_grammar_makes_passes(text: str) -> None:
    parse_expression(join_lines(text))
    assert check_expression(text) == []


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    for problem in check_expression(text):
        assert 0 <= problem.position <= len(text)
        assert problem.shown.splitlines()[-1].strip() == "^"
