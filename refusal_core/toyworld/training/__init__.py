"""What made the bundled models: training, checks, cards. Nothing but its command imports it."""
