"""Models: the only room that knows families, pipelines and where their editable layers are."""
