"""The bundled toy world: captioned moving shapes, and the small video model that is trained on them."""
