"""An engine of vLLM, and the LoRA adapters that it is asked under in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.lm.local import Adapter
from rankpipe.onnx import read_json

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, as vLLM knows them
PLAIN = 16  # the rank that vLLM has room for if it is only told that there will be adapters
Start = Callable[[Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]


class Engine:
    """An engine that is started when it is first used, with room for the adapters that it was told of by then."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._ranks: dict[Adapter, int] = {}  # of the adapters
        self._most = 0  # rank that there is room for, once it is started

    def told(self, adapter: Adapter | None) -> None:
        """There will be requests under this one.

        :raises ModelError: If it is no LoRA, or the engine was started without room for it.
        """
        if adapter is None:
            return
        wanted = rank(adapter.folder)
        if self._llm is not None and wanted > self._most:
            raise ModelError(
                f"{adapter.folder}: of rank {wanted}, and the engine that runs has room for {self._most}; name it "
                "before the first request, or start with engine={'enable_lora': True, 'max_lora_rank': "
                f"{_room(wanted)}}}"
            )
        self._ranks[adapter] = wanted

    def llm(self, start: Start) -> Any:
        """vLLM's own.

        :param start: starts it with options for adapters, and its user's; the engine, and all options.
        :raises ModelError: If it cannot be started.
        """
        if self._llm is None:
            ranks = self._ranks.values()
            room = {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": _room(max(ranks))} if ranks else {}
            self._llm, options = start(room)
            self._most = options.get("max_lora_rank", PLAIN) if options.get("enable_lora") else 0
        return self._llm

    def request(self, adapter: Adapter | None) -> Any:
        """What a request under this adapter says."""
        if adapter is None:
            return None
        request = need("vllm.lora.request", name="vllm", extra="vllm").LoRARequest
        return request(adapter.identity, [*self._ranks].index(adapter) + 1, str(adapter.folder))


def rank(adapter: Path) -> int:
    """The largest rank of a LoRA.

    :raises ModelError: If it is no plain LoRA, or a larger one than vLLM takes; says how to serve it.
    """
    said = read_json(adapter / "adapter_config.json")
    kind = "DORA" if said.get("use_dora") else said.get("peft_type", "none")
    ranks = [said.get("r"), *(said.get("rank_pattern") or {}).values()]
    if kind == "LORA" and all(isinstance(r, int) and r <= RANKS[-1] for r in ranks):
        return int(max(ranks))
    name = adapter.parent.parent if adapter.parent.name == "made" else adapter
    cure = f"merge it: rankpipe models merge {name} --out FOLDER"
    if kind == "ADALORA":
        cure = f"write it as a LoRA, which is exact: rankpipe models export {name} --format lora --out FOLDER"
    raise ModelError(
        f"{adapter}: vLLM takes LoRA adapters of a rank up to {RANKS[-1]}, and this is {kind}, {ranks}; {cure}"
    )


def _room(rank: int) -> int:
    """The least rank that vLLM has and that holds this one."""
    return next(known for known in RANKS if known >= rank)
