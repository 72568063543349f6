"""Judges: what is seen in a video. One a file; what needs more than the core is imported when used."""
