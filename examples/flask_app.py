"""A Flask application whose requests run units: ``python examples/flask_app.py``, then ``curl localhost:8000/factors/1234567891``.

Needs Flask. A request waits for its unit, for at most two seconds: then it answers 504, the unit is interrupted, and its worker takes
the next one. A worker that crashes costs one request (502), and neither the server nor the others.
"""

from __future__ import annotations

import argparse

from factoring import factors
from flask import Flask, jsonify
from werkzeug.serving import make_server

import workq


def create_app(workers: int = 2, limit_s: float = 2.0) -> Flask:
    """Return the application. Its queue is made here and used by all threads of the server."""
    app = Flask(__name__)
    queue = workq.WorkMgr(workers, name="requests")
    limited = queue.options(timeout=limit_s)

    @app.get("/factors/<int:number>")
    def factors_of(number: int):
        unit = limited.queue(factors, number)
        return jsonify(factors=unit.result(), worker=unit.worker.pid, seconds=unit.run_time_s)

    @app.get("/counters")
    def counters():
        return jsonify(queue.statistics().as_dict())

    @app.errorhandler(workq.UnitTimeout)
    def too_slow(error: workq.UnitTimeout):
        return jsonify(error=str(error)), 504

    @app.errorhandler(workq.UnitCancelled)
    def dropped(error: workq.UnitCancelled):
        return jsonify(error=str(error)), 503

    @app.errorhandler(workq.WorkerHalted)
    def crashed(error: workq.WorkerHalted):
        return jsonify(error=str(error)), 502

    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that a unit may take (2)")
    options = parser.parse_args()
    server = make_server("127.0.0.1", options.port, create_app(limit_s=options.limit), threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("bye")


if __name__ == "__main__":
    main()
