"""An edit for other programs, a checkpoint on disk, the hub."""
