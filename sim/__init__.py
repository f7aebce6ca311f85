"""The second world: both cores on a heap and a virtual clock, with nothing real around them."""
