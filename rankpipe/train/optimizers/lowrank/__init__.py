"""The core that GaLore and its kin share: an optimizer whose state lives in a few directions of each gradient.

Imports torch, since its classes are torch's own kind; so it is imported only when an optimizer is made.
"""

from rankpipe.train.optimizers.lowrank.layerwise import LayerWise
from rankpipe.train.optimizers.lowrank.optimizer import LowRank, Matrix, Options

__all__ = ["LayerWise", "LowRank", "Matrix", "Options"]
