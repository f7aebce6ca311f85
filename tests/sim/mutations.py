"""The table of mutations: every clause of the protocol's rules that can be switched off."""

from __future__ import annotations

from mutations_device import DEVICE
from switches import Mutation

MUTATIONS: dict[str, Mutation] = {mutation.name: mutation for mutation in (*DEVICE,)}
