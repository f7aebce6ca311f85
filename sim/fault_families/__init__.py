"""What faults there are, by what they befall."""
