"""The exception that stops a unit, by itself, because workers load it and must not load the rest of errors.py."""


class ExternalInterrupt(BaseException):
    """Raised inside a running unit that somebody asked to stop.

    The unit may clean up (``finally``, ``with``) and end; what goes on for longer than the queue's ``delete_timeout`` is killed.
    It is a ``BaseException``, so that ``except Exception`` does not swallow it.
    """


ExternalInterrupt.__module__ = "workq"
