"""A filter is what it is written as: read, it is the same again; what is none is refused with its place."""

import pickle
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.errors import RecipeError
from rankpipe.where import And, Equals, Exists, Filter, In, Not, Or, Range, Value

NAMES = st.sampled_from(["year", "author.name", "in", "Exists", "my field", "2019", "a`b\\", "", "größe"]) | st.text()
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Value] = st.text() | NUMBERS | st.booleans()


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    bound = draw(st.sampled_from([st.text(), NUMBERS]))
    sides = draw(st.sampled_from([("gte",), ("gt",), ("lte",), ("lt",), ("gt", "lte"), ("gte", "lt"), ("gt", "lt")]))
    return Range(draw(NAMES), **{side: draw(bound) for side in sides})


LEAVES = st.builds(Exists, NAMES) | st.builds(Equals, NAMES, VALUES) | st.builds(In, NAMES, st.lists(VALUES)) | ranges()
FILTERS = st.recursive(
    LEAVES,
    lambda part: (
        part.map(lambda a: ~a)
        | st.tuples(part, part).map(lambda ab: ab[0] & ab[1])
        | st.tuples(part, part).map(lambda ab: ab[0] | ab[1])
    ),
    max_leaves=8,
)


def shape(where: Filter) -> object:
    """Its tree, for comparing without the text."""
    if isinstance(where, And):
        return (type(where), *map(shape, where.parts))
    return (Not, shape(where.part)) if isinstance(where, Not) else (type(where), repr(vars(where)))


@given(FILTERS)
def test_what_is_written_is_read_as_the_same(where: Filter) -> None:
    read = Filter.of(str(where))
    assert shape(read) == shape(where)
    assert read == where == pickle.loads(pickle.dumps(where)) == Filter.of(where)
    assert hash(read) == hash(where)


PIECES = [
    "year",
    "'a",
    '"',
    "`",
    "\\",
    "(",
    ")",
    ",",
    "<",
    "<=",
    "==",
    "!=",
    "=",
    "in",
    "not",
    "and",
    "or",
    "exists",
    "7",
]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with suppress(RecipeError):
        assert shape(Filter.of(str(Filter.of(text)))) == shape(Filter.of(text))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("year = 2019", Equals("year", 2019)),
        ("year==2.019e3", Equals("year", 2019)),
        ("year == '2019'", Equals("year", "2019")),
        ("code == 007", Equals("code", "007")),
        ("day >= 2024-02-29", Range("day", gte="2024-02-29")),
        ("open == true", Equals("open", True)),
        ("open != True", ~Equals("open", "True")),
        ("2019 <= year<2021", Range("year", gte=2019, lt=2021)),
        ("'b' > name", Range("name", lt="b")),
        ("lang in (en, 'd e', 3)", In("lang", ["en", "d e", 3])),
        ("lang not in ()", ~In("lang", [])),
        ("NOT Exists(`my field`) AND a == b OR c == d", (~Exists("my field") & Equals("a", "b")) | Equals("c", "d")),
        ("a == b and (c == d or not (e == f and g == h))",
         Equals("a", "b") & (Equals("c", "d") | ~(Equals("e", "f") & Equals("g", "h")))),
        ("not not exists(a)", Exists("a")),
        ("(((exists(a))))", Exists("a")),
    ],
)  # fmt: skip
def test_the_language(text: str, where: Filter) -> None:
    assert shape(Filter.of(text)) == shape(where)


@pytest.mark.parametrize(
    ("text", "place", "wanted"),
    [
        ("", "at the end", "a value"),
        ("year", "at the end", "one of ==, =, !=, >=, >, <=, <"),
        ("year >> 2019", "at character 7, '> 2019'", "a value"),
        ("year == ", "at the end", "a value"),
        ("year == 1 2", "at character 11, '2'", "'and', 'or' or the end"),
        ("a == 'x", 'at character 6, "\'x"', "a quote's end"),
        ("a == null", "at character 6, 'null'", "null is none (see exists)"),
        ("a == and", "at character 6, 'and'", "in quotes if it is an odd text"),
        ("a in en", "at character 6, 'en'", "'('"),
        ("a in (en de)", "at character 10, 'de)'", "','"),
        ("a not 3", "at character 7, '3'", "'in'"),
        ("exists(3)", "at character 8, '3)'", "a field"),
        ("exists doi", "at character 8, 'doi'", "'('"),
        ("(a == 1", "at the end", "')'"),
        ("'my field' == 3", "at character 12, '== 3'", "one of >=, >, <=, <"),
        ("5 < x > 3", "at character 7, '> 3'", "a sign that is not >"),
        ("a == b & c == d", "at character 8, '& c == d'", "'and', 'or' or the end"),
        ("not " * 200 + "a == 1", "at character 401", "at most 100 conditions within each other"),
        ("a == " + "9" * 5000, "at the end", "a number of fewer digits"),
    ],
)
def test_a_fault_has_its_place(text: str, place: str, wanted: str) -> None:
    with pytest.raises(RecipeError, match=f"where: .*: {re.escape(place)}.*: expected .*{re.escape(wanted)}"):
        Filter.of(text)


def test_values_that_are_none() -> None:
    for build, said in (
        (lambda: Equals("a", None), "a: the NoneType 'None' is neither a text, nor a number"),  # type: ignore[arg-type]
        (lambda: In("a", [1, float("nan")]), "a: the float 'nan'"),
        (lambda: In("a", "en"), "a in 'en': expected a list of values"),
        (lambda: Range("a"), "a: a range has a lower bound, an upper bound, or one of each"),
        (lambda: Range("a", gt=1, gte=2), "one of each"),
        (lambda: Range("a", gt=1, lt="b"), 'where: 1 < a < "b": the bounds of a range are numbers, or they are texts'),
        (lambda: Filter.of("a < true"), "where: a < true: the bounds"),
        (lambda: Filter.of("a == 1e999"), "a: the float 'inf'"),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            build()


def test_alike_means_written_alike() -> None:
    assert Equals("a", 1) == Equals("a", 1.0) != Equals("a", True)
    assert str(Equals("a", 10**400)) == f"a == {10**400}"
    assert Equals("a", 1) != Equals("a", "1")
    assert {Equals("a", 1), Equals("a", True), Equals("a", "1")} == {
        Filter.of(f"a == {v}") for v in ("1", "true", '"1"')
    }
    assert [leaf.field for leaf in Filter.of("a == 1 and not (exists(b) or c in ())").leaves] == ["a", "b", "c"]
    assert isinstance(Equals("a", 1) | Exists("b"), Or)
