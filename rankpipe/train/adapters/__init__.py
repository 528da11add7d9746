"""Adapters by name: one file a method, each a frozen recipe that makes a ``PeftModel`` of a model.

A recipe says ``adapter: {use: lora, rank: 16, alpha: 32, targets: all-linear}``, Python ``LoRA(rank=16).apply(model)``.
What a method does between steps, adds to the loss, how fast it moves its parts, what it trains and how it is saved is
said by :class:`~rankpipe.train.adapters.adapter.Adapter`.
"""
