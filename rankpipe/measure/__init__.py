"""What a run is worth, and whether another is worth more."""

from rankpipe.measure.compare import Comparison, Difference, compare, worse
from rankpipe.measure.ranking import Evaluation, evaluate, parse
from rankpipe.measure.rbo import rbo

__all__ = ["Comparison", "Difference", "Evaluation", "compare", "evaluate", "parse", "rbo", "worse"]
