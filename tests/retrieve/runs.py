"""Which kinds of indexes run where the tests do."""

import pytest

from rankpipe import catalog, java
from rankpipe.errors import MissingExtra


def skip_unless_there(kind: str) -> None:
    """Skip a test of Milvus or Lucene where that is not installed."""
    if kind == "milvus" and not all(map(catalog.installed, catalog.EXTRAS["milvus"])):
        pytest.skip("needs the extra milvus, which is not installed")
    if kind == "lucene":
        try:
            java.find("java.lang.System")
        except MissingExtra as error:
            pytest.skip(str(error))
