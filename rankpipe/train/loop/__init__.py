"""The loop that tunes a ranker: transformers' Trainer, with what it lacks.

Imports torch and transformers, since its classes are theirs; so it is imported only when something is tuned.
"""

from rankpipe.train.loop.trainer import Method, RankTrainer

__all__ = ["Method", "RankTrainer"]
