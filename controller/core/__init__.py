"""The pure controller: one event and the time in, a list of effects out."""
