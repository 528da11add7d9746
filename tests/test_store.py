import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from rankpipe import disk, seen, store
from rankpipe.disk import lock, write
from rankpipe.errors import ArtefactError, Busy, DataError, DiskError
from rankpipe.progress import listening
from rankpipe.provenance import commit, digest
from rankpipe.store import (
    Data,
    amend,
    claim,
    damages,
    open_artefact,
    publish,
    read_manifest,
    replacing,
    staleness,
)
from tests.heard import Heard

DATA = Data("docs", "abc")


def make(folder: Path, content: str = "one", recipe: dict[str, object] | None = None) -> None:
    with publish(folder, kind="thing", recipe=recipe or {"use": "thing"}, data=DATA) as draft:
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub" / "a.txt").write_text(content)
        (draft.folder / "b.txt").write_text("b")
        draft.facts["documents"] = 3


def content(folder: Path) -> str:
    return (open_artefact(folder, kind="thing").path / "sub" / "a.txt").read_text()


def test_an_artefact_knows_itself(tmp_path: Path) -> None:
    make(tmp_path)
    made = open_artefact(tmp_path, kind="thing")
    assert set(made.files) == {"sub/a.txt", "b.txt"}
    assert (made.size_bytes, made.facts, made.data) == (4, {"documents": 3}, DATA)
    assert made.recipe_hash == digest({"use": "thing"})
    assert made.versions["python"].startswith("3.")
    assert "numpy" in made.versions
    assert [p.name for p in (tmp_path / "made").iterdir()] == [made.build]


def test_a_new_build_replaces_the_old_one(tmp_path: Path) -> None:
    make(tmp_path, "one")
    make(tmp_path, "two")
    assert content(tmp_path) == "two"
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_a_failed_build_leaves_the_old_one(tmp_path: Path) -> None:
    make(tmp_path, "one")
    with pytest.raises(KeyError), publish(tmp_path, kind="thing", recipe={"use": "thing"}, data=DATA) as draft:
        (draft.folder / "b.txt").write_text("half")
        raise KeyError
    assert content(tmp_path) == "one"
    make(tmp_path, "two")
    assert content(tmp_path) == "two"
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_work_is_resumed_only_for_the_same_recipe_and_data(tmp_path: Path) -> None:
    def begin(recipe: str, fail: bool) -> list[str]:
        with publish(tmp_path, kind="thing", recipe={"use": recipe}, data=DATA, resume=True) as draft:
            found = sorted(p.name for p in draft.folder.iterdir())
            (draft.folder / recipe).write_text("")
            if fail:
                raise KeyError
        return found

    with pytest.raises(KeyError):
        begin("a", True)
    assert begin("a", False) == ["a"]
    with pytest.raises(KeyError):
        begin("a", True)
    assert begin("b", False) == []


def test_an_interrupted_build_is_not_removed_without_a_word(tmp_path: Path) -> None:
    def begin(recipe: str, data: str = "abc", resume: object = True, fail: bool = True) -> list[str]:
        kept = publish(tmp_path, kind="thing", recipe={"use": recipe}, data=Data("docs", data), resume=resume)
        with listening(heard := Heard()), pytest.raises(KeyError) if fail else nullcontext(), kept as draft:
            (draft.folder / "half").write_bytes(bytes(2048))
            if fail:
                raise KeyError
        return heard.notices

    def left() -> Path:
        [work] = (tmp_path / "made").glob(".work-*")
        return work

    assert begin("a") == begin("a") == []
    with pytest.raises(ArtefactError, match="has not come to its end; the same command again goes on"):
        read_manifest(tmp_path)
    for how in ({"recipe": "b"}, {"recipe": "b", "data": "xyz"}, {"recipe": "b", "data": "xyz", "resume": "2GB"}):
        before = left()
        said = f"{before} is removed (2 KB): an interrupted build, by other settings or of other data"
        assert begin(**how) == [said]  # type: ignore[arg-type]
        assert not before.exists()
    assert begin("b", "xyz", "2GB", fail=False) == []
    (tmp_path / "made" / ".work-amended").mkdir()
    (tmp_path / "made" / ".work-amended" / "half").write_text("half")
    assert begin("c") == []
    with listening(heard := Heard()), amend(tmp_path, kind="thing"):
        pass
    [said] = heard.notices
    assert said.endswith("is removed (2 KB): an interrupted build, begun before this change")


def test_work_is_left_only_where_a_build_goes_on_from_it(tmp_path: Path) -> None:
    def fail(folder: Path, resume: object, error: type[Exception]) -> list[str]:
        kept = publish(folder, kind="thing", recipe={}, data=DATA, resume=resume)
        with pytest.raises(error), kept as draft:
            (draft.folder / "half.txt").write_text("half")
            raise error
        return [p.name for p in folder.rglob("half.txt")]

    new = tmp_path / "some" / "new"
    assert (fail(new, None, KeyError), list(tmp_path.iterdir())) == ([], [])
    assert (fail(new, True, DataError), list(tmp_path.iterdir())) == ([], [])  # the next would meet it, too
    assert fail(new, True, KeyError) == ["half.txt"]
    make(tmp_path / "old")
    before = sorted(tmp_path.rglob("old/**/*"))
    assert fail(tmp_path / "old", None, KeyError) == []
    with pytest.raises(KeyError), amend(tmp_path / "old", kind="thing"):
        raise KeyError
    assert sorted(tmp_path.rglob("old/**/*")) == before
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine", None, KeyError)
    assert list((tmp_path / "mine").iterdir()) == []  # the folder was there before


def test_an_artefact_of_another_kind_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    def other() -> None:
        with publish(tmp_path, kind="other", recipe={}, data=DATA):
            pass

    make(tmp_path)
    for allowed in (nullcontext(), replacing(False)):
        with allowed, pytest.raises(ArtefactError, match="holds a 'thing', which a 'other' does not replace"):
            other()
    assert content(tmp_path) == "one"
    with replacing():
        other()
    assert read_manifest(tmp_path).kind == "other"
    with pytest.raises(ArtefactError, match="holds a 'other', which a 'thing' does not replace; name"):
        make(tmp_path)


@pytest.mark.parametrize("content", ["{", None])
@pytest.mark.parametrize("resume", [None, True])
def test_without_a_manifest_the_build_stays_until_another_is_whole(
    content: str | None, resume: object, tmp_path: Path
) -> None:
    def begin(fail: bool) -> None:
        kept = publish(tmp_path, kind="thing", recipe={"use": "other"}, data=DATA, resume=resume)
        with pytest.raises(KeyError) if fail else nullcontext(), kept as draft:
            (draft.folder / "new").write_text("new")
            if fail:
                raise KeyError

    make(tmp_path)
    whole, path = read_manifest(tmp_path), tmp_path / "manifest.json"
    text = path.read_text()
    path.unlink() if content is None else path.write_text(content)
    begin(fail=True)
    store.tidy(tmp_path)
    assert (whole.path / store.SPARE).read_text() == text
    assert damages(whole) == []
    begin(fail=False)
    assert [made.name for made in (tmp_path / "made").iterdir()] == [read_manifest(tmp_path).build]


@pytest.mark.parametrize("name", ["", "b.txt", "sub/a.txt", ".manifest.json"])
def test_without_a_manifest_a_build_is_taken_only_as_it_was_written(name: str, tmp_path: Path) -> None:
    def build() -> list[str]:
        with publish(tmp_path, kind="thing", recipe={"use": "thing"}, data=DATA, resume=True) as draft:
            there = sorted(path.name for path in draft.folder.rglob("*.txt"))
            (draft.folder / "sub").mkdir(exist_ok=True)
            for file in ("sub/a.txt", "b.txt"):
                (draft.folder / file).write_text("some")
        return there

    assert build() == []
    before = read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    if name:
        path = before.path / name
        path.write_bytes(path.read_bytes().replace(b"some", b"same").replace(b"thing", b"think"))
    with listening(heard := Heard()):
        assert build() == ([] if name else ["a.txt", "b.txt"])
    assert len(heard.notices) == (name != "")
    assert all(said.endswith("nothing is taken from this build, and all is built again") for said in heard.notices)
    assert read_manifest(tmp_path).files == before.files
    assert len(list((tmp_path / "made").iterdir())) == 1


@pytest.mark.parametrize("by_a_recipe", [False, True])
def test_what_was_changed_before_the_lock_was_held_is_not_replaced(
    by_a_recipe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        monkeypatch.undo()
        with amend(folder, kind="thing") as (_, draft):
            draft.facts["batches"] = 1
        with lock(folder):
            yield

    make(tmp_path)
    monkeypatch.setattr(store, "lock", late)
    with replacing(by_a_recipe, changed=False), pytest.raises(ArtefactError, match="changed once since it was built"):
        make(tmp_path, "two")
    assert content(tmp_path) == "one"


def test_a_folder_of_somebody_else_is_not_claimed(tmp_path: Path) -> None:
    def left(name: str, *files: str) -> Path:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("{}")
        return tmp_path / name

    with pytest.raises(KeyError), publish(tmp_path / "begun", kind="thing", recipe={}, data=DATA, resume=1) as draft:
        (draft.folder / "a").touch()
        raise KeyError
    make(tmp_path / "whole")
    make(tmp_path / "damaged")
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for folder in ("begun", "whole", "damaged", "empty", "none"):
        claim(tmp_path / folder, "thing")
    with pytest.raises(ArtefactError, match="holds a 'thing', which a 'other' does not replace; cure"):
        claim(tmp_path / "whole", "other", "cure")
    for somebodys, holds in (
        (left("a", "corpus.jsonl"), "corpus.jsonl"),
        (left("b", "manifest.json"), "manifest.json"),  # of a web page, perhaps
        (left("c", "recipe.yaml"), "recipe.yaml"),
        (left("d", "made/.work-1/a", "b"), "b"),
        (left("e", "made/photo"), "made"),
    ):
        with replacing(), pytest.raises(ArtefactError, match=f"{somebodys.name}: holds {holds}, and nothing"):
            claim(somebodys, "thing")


def test_only_builds_are_swept(tmp_path: Path) -> None:
    (tmp_path / "made" / "photos").mkdir(parents=True)
    make(tmp_path)
    make(tmp_path)
    assert len(list((tmp_path / "made").iterdir())) == 2
    assert (tmp_path / "made" / "photos").exists()


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
@pytest.mark.parametrize("name", ["sub/a.txt", "b.txt"])
def test_damage_is_named_with_its_cure(tmp_path: Path, harm: str, name: str) -> None:
    make(tmp_path)
    path = read_manifest(tmp_path).path / name
    if harm == "truncate":
        path.write_bytes(b"")
    elif harm == "flip":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    else:
        path.unlink()
    with pytest.raises(ArtefactError, match=f"{name}.*build it again"):
        open_artefact(tmp_path, kind="thing")
    assert len(damages(read_manifest(tmp_path))) == 1


def test_what_is_written_to_while_it_is_checked_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seen, "LARGE", 1)
    make(tmp_path / "made")
    hashed = disk.sha256

    def harming(path: Path) -> str:
        told = hashed(path)
        path.write_bytes(b"x" * path.stat().st_size)
        return told

    monkeypatch.setattr(disk, "sha256", harming)
    assert damages(read_manifest(tmp_path / "made")) == []
    monkeypatch.setattr(disk, "sha256", hashed)
    with pytest.raises(ArtefactError, match=r"a\.txt is damaged.*b\.txt is damaged|b\.txt.*a\.txt"):
        open_artefact(tmp_path / "made", kind="thing")


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    for text in (
        "{",
        "[]",
        '{"data": {}}',
        json.dumps({**json.loads((tmp_path / "manifest.json").read_text()), "x": 1}),
    ):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ArtefactError, match="damaged manifest"):
            read_manifest(tmp_path)


def test_absent_and_foreign_artefacts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="nothing built here; is the path right"):
        open_artefact(tmp_path, kind="thing")
    (tmp_path / "recipe.yaml").write_text("data: x")
    with pytest.raises(ArtefactError, match="build it with: rankpipe index build"):
        open_artefact(tmp_path, kind="thing")
    make(tmp_path)
    with pytest.raises(ArtefactError, match="holds a 'thing', not a 'bm25'"):
        open_artefact(tmp_path, kind="bm25")
    with pytest.raises(ArtefactError, match="format 1, this version reads 2"):
        open_artefact(tmp_path, kind="thing", format=2)


def test_staleness_says_why(tmp_path: Path) -> None:
    def why(data: Data = DATA, **recipe: object) -> str | None:
        return staleness(tmp_path, kind="thing", recipe={"use": "thing", **recipe}, data=data)

    assert "nothing built here" in (why() or "")
    make(tmp_path)
    assert why() is None
    assert "another recipe (k1 changed)" in (why(k1=0.9) or "")
    assert "other documents" in (why(Data("docs", "def")) or "")
    assert why(Data("renamed", "abc")) is None


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    code = "import sys, time, pathlib; from rankpipe.disk import lock\nwith lock(pathlib.Path(sys.argv[1])):\n"
    code += " print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(Busy, match="another process is writing here"):
        make(tmp_path)
    holder.send_signal(signal.SIGKILL)  # the lock goes with its holder
    holder.wait()
    holder.stdout.close()
    with lock(tmp_path):
        pass
    make(tmp_path)


def test_who_waits_for_a_lock_gets_one_that_holds(tmp_path: Path) -> None:
    """Though the folder was removed with the lock, since nothing was written."""
    folder = tmp_path / "new"

    def wait() -> bool:
        with lock(folder, wait=True):
            refused = pytest.raises(Busy, match="another process is writing here")
            with refused, lock(folder):
                pass
            return (folder / ".lock").exists()

    with ThreadPoolExecutor(1) as threads:
        with lock(folder):
            told = threads.submit(wait)
            time.sleep(0.05)
        assert told.result()
    assert not folder.exists()


KILLED = """
import sys
from pathlib import Path
from rankpipe.store import Data, publish
folder = Path(sys.argv[1])
print("go", flush=True)
for n in range(10_000):
    with publish(folder, kind="thing", recipe={"use": "thing"}, data=Data("docs", "abc")) as draft:
        for i in range(5):
            (draft.folder / f"{i}.txt").write_text(str(n) * 1000)
"""


def test_kill_9_leaves_the_old_build_or_the_new(tmp_path: Path) -> None:
    for k in range(12):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.05 + 0.013 * k)
        process.kill()
        process.wait()
        process.stdout.close()
        if (tmp_path / "manifest.json").exists():
            made = open_artefact(tmp_path, kind="thing")
            assert len({(made.path / f"{i}.txt").read_text() for i in range(5)}) == 1
    make(tmp_path)
    assert len(list((tmp_path / "made").iterdir())) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(KeyError), write(path) as f:
        f.write("half")
        raise KeyError
    assert list(path.parent.iterdir()) == []
    with write(path) as f:
        f.write("whole\n")
        assert not path.exists()
    assert path.read_bytes() == b"whole\n"


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_changes_nothing(small_disk: Path) -> None:
    make(small_disk, "one")
    with pytest.raises(DiskError, match="no space left; nothing was changed"):
        make(small_disk, "x" * (2 << 20))
    assert content(small_disk) == "one"
    with pytest.raises(DiskError, match="no space left"), write(small_disk / "b") as f:
        f.write("x" * (2 << 20))
    assert not (small_disk / "b").exists()
    make(small_disk, "two")
    assert content(small_disk) == "two"


def test_full_by_injection(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DiskError, match="no space left"), publish(tmp_path, kind="thing", recipe={}, data=DATA):
        raise OSError(28, "No space left on device")
    assert content(tmp_path) == "one"


def test_commit_names_the_state_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert commit() == "none"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run(["git", "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    clean = commit()
    assert len(clean) == 12
    (tmp_path / "a").write_text("2")
    assert commit() == clean + "+"


def test_what_is_said_of_files_that_are_gone(tmp_path: Path) -> None:
    """A few of them by name; all at once where the whole folder is, as in a clone that has only manifests."""
    with publish(tmp_path / "it", kind="x", recipe={}, data=DATA) as draft:
        for i in range(5):
            (draft.folder / f"{i}").write_text("1")
    made = open_artefact(tmp_path / "it", kind="x")
    for i in range(5):
        (made.path / f"{i}").unlink()
    with pytest.raises(ArtefactError, match=r"2 is missing; and 2 more; build it again"):
        open_artefact(tmp_path / "it", kind="x")
    shutil.rmtree(made.path)
    with pytest.raises(ArtefactError, match=r"it: made/\S+ is gone, with all that the manifest names; build it again"):
        open_artefact(tmp_path / "it", kind="x")
