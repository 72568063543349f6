"""The toy world in free English: its looks and phrases, and the model that learns them."""
