"""The live world: what drives a core on a real machine. The twin of `sim`.

Driver, MQTT link, clock, settings, logs: what agent and controller both need and nothing
else. It knows the words of `protocol` and neither `edge_agent` nor `controller`; paho-mqtt
is its only third party, and only `link_paho` knows it.
"""
