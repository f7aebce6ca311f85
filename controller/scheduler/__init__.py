"""The scheduler: a read-only view of the fleet in, picks and explanations out.

filters (boolean columns) -> scores (float columns in 0..1) -> pick (reserves as it goes)
-> explain. Pure numpy; it knows no task states, no leases and no network.
"""
