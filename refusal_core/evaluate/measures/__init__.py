"""What is read from videos, how it is counted and how it is kept."""
