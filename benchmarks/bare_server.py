"""The least server there is under the same HTTP stack: reads a body, answers 201 with a small JSON.

The probe of `bench_submit`: what it reaches is what uvicorn, httptools, Starlette and this
machine leave for us. Started as a child by it; prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from live.parent import die_with_parent


async def _answer(request: Request) -> Response:
    await request.body()
    return Response(b'{"id":"none"}', 201, media_type="application/json")


def main() -> None:
    die_with_parent()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    app = Starlette(routes=[Route("/api/v1/jobs", _answer, methods=["POST"])])
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
