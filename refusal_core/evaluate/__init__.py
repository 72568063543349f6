"""Evaluation: suites of prompts, methods, and reports with intervals."""
