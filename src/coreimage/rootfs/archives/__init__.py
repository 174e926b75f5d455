"""Package archives: what they would install, and bringing it."""
