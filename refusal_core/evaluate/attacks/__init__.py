"""Attacks that try to bring a concept back."""
