from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rankpipe import Doc, Hit, Query, Ranking, Step
from rankpipe.errors import ArtefactError, DataError, DiskError
from rankpipe.journal import Kept, Replayed, Source, Totals, note, noted
from rankpipe.rerank.ltr import LearnedRanker
from rankpipe.stage import Reranker


class Turn(Reranker):
    """Turns the order round; remembers what it was asked."""

    batch = 2

    def __init__(self, fail_at: int = 99) -> None:
        self.asked: list[str] = []
        self.fail_at = fail_at

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        self.asked += [r.query.id for r in batch]
        if len(self.asked) > self.fail_at:
            raise KeyboardInterrupt
        return [r.reordered(range(len(r.hits))[::-1]).noting(Step(self.name, calls=1)) for r in batch]


def rankings(n: int = 5, text: str = "t") -> list[Ranking]:
    return [
        Ranking(Query(str(i), "q"), tuple(Hit(Doc(f"d{j}", f"{text}{j}"), 1.0 - j) for j in range(4)), (Step("first"),))
        for i in range(n)
    ]


def plain(made: Sequence[Ranking]) -> list[object]:
    return [(r.query, r.hits, [(s.stage, s.calls) for s in r.steps]) for r in made]


def test_the_same_as_without(tmp_path: Path) -> None:
    kept = Kept(Turn(), tmp_path / "k.jsonl", "turn")
    assert plain(kept.apply(rankings())) == plain(Turn().apply(rankings()))
    again = Kept(inner := Turn(), tmp_path / "k.jsonl", "turn")
    assert again.apply(rankings()) == kept.apply(rankings())  # seconds, too: what the work cost when it was done
    assert (inner.asked, again.totals.asked, kept.totals.asked) == ([], 0, 5)


@pytest.mark.parametrize("change", ["identity", "text", "query"])
def test_anything_that_decides_the_result_is_in_the_key(tmp_path: Path, change: str) -> None:
    Kept(Turn(), tmp_path / "k.jsonl", "turn").apply(rankings())
    other = Kept(Turn(), tmp_path / "k.jsonl", "other" if change == "identity" else "turn")
    given = rankings(text="u") if change == "text" else rankings()
    if change == "query":
        given = [Ranking(Query(r.query.id, "else"), r.hits) for r in given]
    other.apply(given)
    assert other.totals.asked == 5


@pytest.mark.parametrize("reads", [False, True])
def test_scores_are_in_the_key_of_a_stage_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(Turn, "reads_scores", reads)
    Kept(Turn(), tmp_path / "k.jsonl", "turn").apply(rankings())
    lower = [replace(r, hits=tuple(replace(h, score=h.score - 1) for h in r.hits)) for r in rankings()]
    other = Kept(Turn(), tmp_path / "k.jsonl", "turn")
    other.apply(lower)
    assert other.totals == (Totals(asked=5) if reads else Totals(known=5))
    assert LearnedRanker.reads_scores


def test_what_a_stage_gave_is_replayed(tmp_path: Path) -> None:
    made, source = Turn().apply(rankings()), Source.of(Path("a.trec"), rankings())
    note(tmp_path / "n.jsonl", source, rankings(), made)
    assert noted(tmp_path / "n.jsonl") == source
    assert noted(tmp_path / "none.jsonl") is None
    assert Replayed(tmp_path / "n.jsonl").apply(rankings()[::-1]) == made[::-1]
    with pytest.raises(DataError, match=r"n\.jsonl: nothing of query '0' with these hits"):
        Replayed(tmp_path / "n.jsonl").apply(rankings(text="u"))


def test_rankings_are_known_by_what_is_asked_and_shown() -> None:
    """Not by their scores, which the same hits may have others of in another file, nor by the order of the queries."""
    whole = Source.of(Path("a.trec"), rankings())
    lower = [replace(r, hits=tuple(replace(h, score=h.score - 1) for h in r.hits)) for r in rankings()]
    turned = [replace(r, hits=tuple(replace(h, score=0.0) for h in r.hits[::-1])) for r in rankings()]
    assert Source.of(Path("a.trec"), lower[::-1]) == whole
    for other in (rankings()[:-1], turned, rankings(text="u")):
        assert Source.of(Path("a.trec"), other).checksum != whole.checksum


def test_what_is_forgotten_is_made_again(tmp_path: Path) -> None:
    made = Kept(Turn(), tmp_path / "k.jsonl", "turn").apply(rankings())
    kept = Kept(inner := Turn(), tmp_path / "k.jsonl", "turn")
    kept.only({kept.key(r) for r in rankings()[:3]})
    assert plain(kept.apply(rankings())) == plain(made)
    assert (inner.asked, kept.totals) == (["3", "4"], Totals(3, 2))
    kept.only(())
    assert not Kept(Turn(), tmp_path / "k.jsonl", "turn").known


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Kept(Turn(fail_at=3), tmp_path / "k.jsonl", "turn").apply(rankings())
    inner = Turn()
    made = Kept(inner, tmp_path / "k.jsonl", "turn").apply(rankings())
    assert inner.asked == ["2", "3", "4"]
    assert plain(made) == plain(Turn().apply(rankings()))


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "k.jsonl"
    Kept(Turn(), path, "turn").apply(rankings())
    path.write_bytes(path.read_bytes()[:-cut])
    kept = Kept(Turn(), path, "turn")
    assert plain(kept.apply(rankings())) == plain(Turn().apply(rankings()))
    assert kept.totals == Totals(known=4, asked=1)
    assert Kept(Turn(), path, "turn").known.keys() == kept.known.keys()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    Kept(Turn(), path, "turn").apply(rankings())
    path.write_text(path.read_text().replace("{", "!", 1))
    with pytest.raises(ArtefactError, match=r"k\.jsonl:1: damaged line; delete the file"):
        Kept(Turn(), path, "turn")


def test_a_full_disk_is_a_disk_error(tmp_path: Path) -> None:
    kept = Kept(Turn(), tmp_path / "k.jsonl", "turn")
    kept.path = Path("/dev/full")
    with pytest.raises(DiskError, match="no space left"):
        kept.apply(rankings())
