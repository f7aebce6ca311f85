"""The controller: registry, jobs, placement, leases, failover; its store and its REST API.

`core/` is the pure machine, `scheduler/` its business, `store/` and `api/` are leaves.
"""
