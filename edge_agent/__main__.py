"""`python -m edge_agent` is the `edge-agent` command."""

from __future__ import annotations

from edge_agent.cli import main

raise SystemExit(main())
