"""What is compared: edits and the methods of others, one interface."""
