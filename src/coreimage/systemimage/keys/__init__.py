"""Keys: keyrings, their renewal and rotation, and signing everything again with new keys."""
