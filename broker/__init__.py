"""Everything about the broker: a model of one, its rules, its configuration, one that runs.

`model` is an MQTT 3.1.1 broker as a pure machine (the simulator's broker), `acl` the
fleet's access rules, `render` mosquitto's files made from them, `serve` a broker that
really runs: mosquitto as a child, amqtt in-process, or one that somebody else runs.
Correctness never rests on any of them: the database is truth, retained messages are a
cache, a will is a hint (see `DESIGN.md`).
"""
