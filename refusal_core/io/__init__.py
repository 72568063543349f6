"""Files of every kind, trusting nothing that is read. Knows no model."""
