"""Suites: which prompts are tried, and what is looked for in their videos. One source a file."""
