"""What can be used again: caches, locks, and what decides."""
