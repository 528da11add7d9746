"""Collections: opened by path or name, streamed, and checked."""

from rankpipe.datasets.dataset import Corpus, Dataset
from rankpipe.datasets.lookup import rankings, streamed
from rankpipe.datasets.opening import open_dataset, open_files, open_to_learn
from rankpipe.datasets.requests import read_requests, write_requests

__all__ = [
    "Corpus",
    "Dataset",
    "open_dataset",
    "open_files",
    "open_to_learn",
    "rankings",
    "read_requests",
    "streamed",
    "write_requests",
]
