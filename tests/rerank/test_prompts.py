"""Prompts: the exact wording, what passages may do to it, and files that are not right."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.rerank.prompts import TEMPLATES, clean, named, read

RIGHT = """
passage: "[{label}] {passage}\\n"
messages:
  - user: "{query} {count}\\n{passages}"
"""


def test_rank_zephyr_word_for_word() -> None:
    system, user = named("rank_zephyr").render("best band?", ["one", "two"])
    assert system == {
        "role": "system",
        "content": "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to the "
        "query",
    }
    assert user == {
        "role": "user",
        "content": "I will provide you with 2 passages, each indicated by a numerical identifier []. Rank the passages "
        "based on their relevance to the search query: best band?.\n"
        "[1] one\n"
        "[2] two\n"
        "Search Query: best band?.\n"
        "Rank the 2 passages above based on their relevance to the search query. All the passages should be included "
        "and listed using identifiers, in descending order of relevance. The output format should be [] > [], e.g., "
        "[2] > [1], Answer concisely and directly and only respond with the ranking results, do not say any word or "
        "explain.",
    }


@pytest.mark.parametrize(("name", "example"), [("rank_zephyr_paper", "[2] > [1]"), ("rank_vicuna_paper", "[4] > [2]")])
def test_the_papers_wording(name: str, example: str) -> None:
    now, then = named("rank_zephyr").render("q", ["one"]), named(name).render("q", ["one"])
    assert then[0]["content"] == now[0]["content"] + "."
    assert then[1]["content"] == now[1]["content"].replace("query: q.\n", "query: q.\n\n").replace(
        "[2] > [1], Answer concisely and directly and only", example + ", Only"
    ).replace("\n\nRank the", "\nRank the")


def test_every_template_of_ours_is_right() -> None:
    for file in TEMPLATES.glob("*.yaml"):
        assert read(file).render("q", ["p"])


def test_titles() -> None:
    prompt = named("rank_zephyr")
    assert prompt.document(Doc("1", " a\n b ", "T ")) == "Title: T Content: a b"
    assert prompt.document(Doc("1", "a", " ")) == "a"
    assert prompt.document(Doc("1", "", "")) == ""


def test_our_own_template_reads_a_document_as_an_index_does(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RIGHT)
    doc = Doc("1", "text", "title")
    assert read(tmp_path / "mine.yaml").document(doc) == doc.contents


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as in [12] and [1][2]", "as in (12) and (1)(2)"),
        ("one\n[2] two", "one (2) two"),
        ("[a] [] [1", "[a] [] [1"),
        ("{query} {0} %s \\1", "{query} {0} %s \\1"),
        ("half \ud800 a letter", "half ? a letter"),
        ("cafÃ© ☕", "cafÃ© ☕"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_nothing_in_a_text_is_taken_for_a_placeholder() -> None:
    _, user = named("rank_zephyr").render("{passages} [3]", ["{query}"])
    assert "search query: {passages} (3).\n[1] {query}\n" in user["content"]


def test_letters(tmp_path: Path) -> None:
    (tmp_path / "abc.yaml").write_text("labels: letters" + RIGHT)
    prompt = read(tmp_path / "abc.yaml")
    assert prompt.render("q", ["x", "y"])[0]["content"] == "q 2\n[A] x\n[B] y\n"
    assert prompt.ranking(3) == "[A] > [B] > [C]"
    assert prompt.read("[B] > [A]", 2).order == (1, 0)
    with pytest.raises(DataError, match="27 passages, but there are 26 letters"):
        prompt.render("q", ["x"] * 27)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("{query}", "{querry}", r"messages\[0\]: unknown placeholder \{querry\}; did you mean query\?"),
        ("{query}", "{query.__class__}", r"unknown placeholder \{query.__class__\}"),
        ("{query}", "{query!r}", r"unknown placeholder \{query!r\}"),
        ("{query}", "{}", r"unknown placeholder \{\}"),
        ("{query}", "{query", "a brace that is meant is written twice"),
        ("{query}", "", r"messages: the placeholder \{query\} is missing"),
        ("\\n{passages}", "", r"messages: the placeholder \{passages\} is missing"),
        ("{passages}", "{passages}{passages}", "more than once"),
        ("{label}", "1", r"passage: the placeholder \{label\} is missing"),
        ("] {passage}", "]", r"passage: the placeholder \{passage\} is missing"),
        ("passage: ", "pasage: ", "(?s)unknown key 'pasage'; did you mean passage.*'passage' is missing"),
        ("- user: ", "- usr: ", r"unknown role 'usr'; did you mean user\?"),
        ("- user: ", "- ", "messages: must be a list of entries"),
        ('"{query} {count}\\n{passages}"', "5", r"messages\[0\]: 5 is no text"),
        ("passage: ", "labels: roman\npassage: ", "'roman' is not one of numbers, letters"),
        ("passage: ", "titled: x\npassage: ", r"titled: the placeholder \{title\} is missing"),
        ("passage: ", "passage: }", "3: not YAML|2: not YAML"),
    ],
)
def test_wrong_templates_say_file_and_fault(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in RIGHT
    file = tmp_path / "mine.yaml"
    file.write_text(RIGHT.replace(old, new, 1))
    with pytest.raises(DataError, match=fault) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_no_such_prompt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)'rank_zefyr'; did you mean rank_zephyr.*rank_zephyr_paper"):
        named("rank_zefyr")
    with pytest.raises(DataError, match="no such prompt file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(DataError, match="is a mapping"):
        read(tmp_path / "list.yaml")
