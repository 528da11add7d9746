"""What an optimizer's state takes in memory."""

from __future__ import annotations

from typing import Any


def state_bytes(optimizer: Any) -> int:
    """Bytes that the state's tensors keep alive: of whole storages, each counted once, whatever part a view shows."""
    storages = {
        store.data_ptr(): store.nbytes()
        for state in optimizer.state.values()
        for value in state.values()
        if hasattr(value, "untyped_storage") and (store := value.untyped_storage())
    }
    return sum(storages.values())
