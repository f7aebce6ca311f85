"""The REST API: routes translate, ask the core by an event, and translate its view back.

Rule: nothing is decided here, and nothing here is durable. pydantic, FastAPI and HTTP
are known in this folder only; the core behind `CorePort` knows none of them.
"""
