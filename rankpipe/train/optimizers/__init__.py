"""Optimizers by name: one file a method, each a frozen recipe that makes a ``torch.optim.Optimizer`` over a model.

A recipe says ``optimizer: {use: galore, rank: 128, gap: 200, scale: 0.25, proj: rsvd}``, Python
``GaLore(rank=128).over(model)``. What steps in a subspace lies in :mod:`~rankpipe.train.optimizers.lowrank`, the only
part that needs torch to be imported.
"""
