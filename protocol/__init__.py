"""The words that agent and controller share: topics, messages, rules, limits.

Standard library and cbor2 only, and pure: no clock, no socket, no file. `DESIGN.md`
beside this file is the full specification of the wire.
"""
