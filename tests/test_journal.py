from collections.abc import Sequence
from pathlib import Path

import pytest

from rankpipe import Doc, Hit, Query, Ranking, Step
from rankpipe.errors import ArtefactError, DiskError
from rankpipe.journal import Kept
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
    assert (inner.asked, again.fresh, kept.fresh) == ([], 0, 5)


@pytest.mark.parametrize("change", ["identity", "text", "query"])
def test_anything_that_decides_the_result_is_in_the_key(tmp_path: Path, change: str) -> None:
    Kept(Turn(), tmp_path / "k.jsonl", "turn").apply(rankings())
    other = Kept(Turn(), tmp_path / "k.jsonl", "other" if change == "identity" else "turn")
    given = rankings(text="u") if change == "text" else rankings()
    if change == "query":
        given = [Ranking(Query(r.query.id, "else"), r.hits) for r in given]
    other.apply(given)
    assert other.fresh == 5


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
    assert kept.fresh == 1
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
