"""What capture reads with: the side of sites that see the video."""
