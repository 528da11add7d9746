"""What a ranker is trained to make small. One signature: ``loss(scores, labels, mask)``, each (B, N), gives a number.

See :class:`~rankpipe.train.losses.lists.ListLoss` for what holds of all of them. The loss of a language model's written
order, :class:`PermutationLM`, sees logits and tokens instead; :class:`Sum` puts losses of both kinds together.
"""

from rankpipe.train.losses.contrast import InBatch, InfoNCE, SoftmaxCE, without_false_negatives
from rankpipe.train.losses.distil import ADRMSE, KL, MarginMSE
from rankpipe.train.losses.lists import ListLoss
from rankpipe.train.losses.listwise import ListMLE, ListNet, PListMLE
from rankpipe.train.losses.ndcg import ApproxNDCG, LambdaLoss, NeuralNDCG
from rankpipe.train.losses.pairwise import RankNet, WeightedRankNet
from rankpipe.train.losses.reply import PermutationLM, Sum, first_loss

__all__ = [
    "ADRMSE", "KL", "ApproxNDCG", "InBatch", "InfoNCE", "LambdaLoss", "ListLoss", "ListMLE", "ListNet", "MarginMSE",
    "NeuralNDCG", "PListMLE", "PermutationLM", "RankNet", "SoftmaxCE", "Sum", "WeightedRankNet", "first_loss",
    "without_false_negatives",
]  # fmt: skip
