"""The weights of a model in this process, loaded once for all that ask it, and the adapters that they wear in turn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from rankpipe.catalog import need
from rankpipe.lm.local import Adapter, loaded, loading
from rankpipe.onnx import read_json

LORA = "LORA"  # as PEFT calls it
_held: WeakValueDictionary[Hashable, Held] = WeakValueDictionary()
_making = RLock()


class Held:
    """A model of transformers, and the adapters that were put on it so far.

    :param model: as it was loaded.
    """

    def __init__(self, model: Any) -> None:
        self.bare = model
        self._adapted: Any = None
        self._names: dict[Adapter, str] = {}
        self._worn: Adapter | None = None
        self._lock = RLock()

    @contextmanager
    def wearing(self, adapter: Adapter | None) -> Iterator[Any]:
        """The model as of :meth:`under`; until the block ends other threads wait for it."""
        with self._lock:
            yield self.under(adapter)

    def under(self, adapter: Adapter | None) -> Any:
        """The model under an adapter, which is loaded if it is new; without one, as it was made.

        :raises ModelError: If it cannot be loaded.
        """
        with self._lock:
            if adapter != self._worn:
                self._worn = None
                try:
                    if adapter is not None:
                        self._wear(adapter)
                    self._worn = adapter
                finally:
                    self._enable(self._worn is not None)
            return self.bare if adapter is None else self._adapted

    def _wear(self, adapter: Adapter) -> None:
        peft, name = need("peft", name="hf", extra="lm").PeftModel, f"adapter{len(self._names)}"
        if adapter not in self._names:
            if self._adapted is None:
                self._adapted = loaded(peft, adapter.folder, self.bare, adapter_name=name)
            else:
                with loading(adapter.folder, peft):
                    self._adapted.load_adapter(adapter.folder, name)
            self._names[adapter] = name
        self._adapted.set_adapter(self._names[adapter], inference_mode=True)

    def _enable(self, on: bool) -> None:
        """All layers that adapters were put on, also one that then could not be loaded."""
        tuners = need("peft.tuners.tuners_utils", name="hf", extra="lm").BaseTunerLayer
        wrappers = need("peft.utils.other", name="hf", extra="lm").AuxiliaryTrainingWrapper
        for module in self.bare.modules():
            if isinstance(module, (tuners, wrappers)):
                module.enable_adapters(on)


def hold(key: Hashable, adapter: Adapter | None, load: Callable[[], Any]) -> Held:
    """The weights that this key stands for, loaded if nobody has them.

    :param adapter: what they will wear. LoRAs take turns on one base; any other kind of adapter has its own.
    """
    kind = read_json(adapter.folder / "adapter_config.json").get("peft_type", LORA) if adapter else LORA
    key = (key, adapter if kind != LORA else None)
    with _making:
        if (found := _held.get(key)) is None:
            found = _held[key] = Held(load())
        return found
