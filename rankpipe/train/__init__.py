"""Tune rankers: losses, and what else training takes."""
