"""Cards on the shelf ``models`` say what their manifests and logs do."""

from pathlib import Path

import pytest

from rankpipe import store
from rankpipe.datasets import open_dataset
from rankpipe.train.card import card
from rankpipe.train.tuning import read_log

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("folder", sorted(path.parent for path in MODELS.glob("*/manifest.json")), ids=lambda p: p.name)
def test_a_card_is_of_its_model(folder: Path, data_root: Path) -> None:
    made = store.read_manifest(folder)
    sources = made.recipe["examples"].get("of", [made.recipe["examples"]])
    collections = {c.name: c for c in (open_dataset(s["data"], s.get("split", "test")) for s in sources)}
    assert (folder / "card.md").read_text() == card(folder.name, made, [*collections.values()], read_log(folder))
