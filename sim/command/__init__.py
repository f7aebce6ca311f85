"""`fm sim`: its commands, and what they print and write."""
