"""The app's only door to the core: each page imports what it uses. Knows neither tensors nor Gradio."""
