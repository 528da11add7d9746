"""What an optimizer's state takes in memory."""

from __future__ import annotations

from typing import Any


def state_bytes(optimizer: Any) -> int:
    """Bytes that the state's tensors keep alive: of whole storages, each counted once, whatever part a view shows. Of
    tensors that are spread over processes, this one's part.
    """
    values = [value for state in optimizer.state.values() for value in state.values()]
    parts = [value.to_local() if hasattr(value, "to_local") else value for value in values]
    storages = {
        store.data_ptr(): store.nbytes()
        for part in parts
        if hasattr(part, "untyped_storage") and (store := part.untyped_storage())
    }
    return sum(storages.values())
