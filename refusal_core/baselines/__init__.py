"""Baselines: other ways to suppress a concept, run on the same prompts, seeds and judge."""
