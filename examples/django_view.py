"""A Django view that runs a unit: ``python examples/django_view.py``, then ``curl localhost:8000/factors/1234567891``.

Needs Django. A whole project in one file; in yours the queue belongs into a module of its own. It is made when it is first used and
not when the module is imported: servers that fork (gunicorn, uWSGI, the reloader of runserver) import first and fork afterwards, and
each of their processes needs a queue of its own.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from factoring import factors

import workq


@cache
def queue() -> workq.WorkMgr:
    """Return this process's queue, made at the first request."""
    return workq.WorkMgr(2, name="requests")


def factors_view(request: HttpRequest, number: int) -> JsonResponse:
    """Answer with the factors; 504 where that takes too long, 503 where somebody has cancelled it, 502 where the worker has crashed."""
    unit = queue().options(timeout=settings.UNIT_LIMIT_S).queue(factors, number)
    try:
        return JsonResponse({"factors": unit.result(), "worker": unit.worker.pid, "seconds": unit.run_time_s})
    except workq.UnitTimeout as error:
        return JsonResponse({"error": str(error)}, status=504)
    except workq.UnitCancelled as error:
        return JsonResponse({"error": str(error)}, status=503)
    except workq.WorkerHalted as error:
        return JsonResponse({"error": str(error)}, status=502)


urlpatterns = [path("factors/<int:number>", factors_view)]


class Quiet(WSGIRequestHandler):
    """Prints no line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that a unit may take (2)")
    options = parser.parse_args()
    settings.configure(
        ROOT_URLCONF=sys.modules[__name__],
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        SECRET_KEY="only an example",
        UNIT_LIMIT_S=options.limit,
    )
    django.setup()
    with make_server("127.0.0.1", options.port, get_wsgi_application(), handler_class=Quiet) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
