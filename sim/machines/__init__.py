"""What stands in a simulated device: its agent's process, its guard, its clock, its output."""
