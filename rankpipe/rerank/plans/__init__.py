"""How to sort a long list with a model that sees only a few passages at a time: plans, one file for each family.

What a plan is stands in :mod:`~rankpipe.rerank.plans.plan`, with ``drive``, which runs many of them in step.
"""

from rankpipe.rerank.plans.consistent import Consensus, SelfConsistent
from rankpipe.rerank.plans.merge import Borda, Kemeny
from rankpipe.rerank.plans.pairwise import AllPairs, PairwiseBubble, PairwiseHeap
from rankpipe.rerank.plans.passes import MultiPass, ShuffledPasses
from rankpipe.rerank.plans.plan import AsShown, Ballot, Plan, Planner, Round, Windows, drive
from rankpipe.rerank.plans.setwise import SetwiseBubble, SetwiseHeap, SetwiseInsertion
from rankpipe.rerank.plans.topdown import TopDown
from rankpipe.rerank.plans.windows import Single, Sliding, Tournament

__all__ = [
    "AllPairs", "AsShown", "Ballot", "Borda", "Consensus", "Kemeny", "MultiPass", "PairwiseBubble", "PairwiseHeap",
    "Plan", "Planner", "Round", "SelfConsistent", "SetwiseBubble", "SetwiseHeap", "SetwiseInsertion",
    "ShuffledPasses", "Single", "Sliding", "TopDown", "Tournament", "Windows", "drive",
]  # fmt: skip
