"""Rerankers: they reorder what a retriever found, and never lose or add a document."""
