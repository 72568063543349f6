"""The studio: the app's pages. The only room that imports Gradio; nothing else imports the studio."""
