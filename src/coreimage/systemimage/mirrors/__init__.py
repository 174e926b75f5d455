"""Other channel trees: read with verification, and mirrored."""
