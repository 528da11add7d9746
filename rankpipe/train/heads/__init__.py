"""Heads: what makes a ranker of a model. Each makes batches by the prompts of its reranker, reads scores off the model,
and lends the model that is being tuned to that reranker, so that what is evaluated is what will be used.

A recipe says ``head: {use: first-head}``; ``head.over("smollm2")`` is a :class:`~rankpipe.train.heads.head.Ranker`.
"""
