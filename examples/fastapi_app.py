"""A FastAPI application whose requests await units: ``python examples/fastapi_app.py``, then ``curl localhost:8000/factors/1234567891``.

Needs FastAPI and uvicorn. Nothing blocks the event loop: a request awaits its unit, for at most two seconds; then it answers 504, the unit
is interrupted, and its worker takes the next one. A worker that crashes costs one request (502).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from factoring import factors
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import workq


def create_app(workers: int = 2, limit_s: float = 2.0) -> FastAPI:
    """Return the application; its queue lives as long as it serves."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.queue = workq.WorkMgr(workers, name="requests")
        yield
        await asyncio.to_thread(app.state.queue.close)

    app = FastAPI(lifespan=lifespan)

    @app.get("/factors/{number}")
    async def factors_of(number: int, request: Request) -> dict[str, object]:
        unit = request.app.state.queue.options(timeout=limit_s).queue(factors, number)
        return {"factors": await unit, "worker": unit.worker.pid, "seconds": unit.run_time_s}

    @app.get("/counters")
    async def counters(request: Request) -> dict[str, object]:
        return request.app.state.queue.statistics().as_dict()

    @app.exception_handler(workq.UnitTimeout)
    async def too_slow(request: Request, error: workq.UnitTimeout) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 504)

    @app.exception_handler(workq.UnitCancelled)
    async def dropped(request: Request, error: workq.UnitCancelled) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503)

    @app.exception_handler(workq.WorkerHalted)
    async def crashed(request: Request, error: workq.WorkerHalted) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 502)

    return app


class Server(uvicorn.Server):
    """A server that says where it listens, as the port may be any that is free."""

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets=sockets)
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that a unit may take (2)")
    options = parser.parse_args()
    Server(uvicorn.Config(create_app(limit_s=options.limit), port=options.port, log_level="warning")).run()


if __name__ == "__main__":
    main()
