"""What a worker of these tests runs instead of workq.worker.main: it obeys one-line orders from its socket."""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time


def run(socket_fd, board_fd, output_fd, error_fd, leader_bell, controller_bell):
    """Answer ready, then one line for each order."""
    channel = socket.socket(fileno=socket_fd)
    lines = channel.makefile("r", encoding="utf-8")

    def say(answer):
        os.write(socket_fd, f"{answer}\n".encode())  # a signal handler may say something too

    context = {
        "numbers": (socket_fd, board_fd, output_fd, error_fd, leader_bell, controller_bell),
        "started": [],
        **{module.__name__: module for module in (ctypes, os, re, resource, signal, subprocess, sys, time)},
        "grandchild": grandchild,
        "daemon": daemon,
        "say": say,
    }
    say("ready")
    for line in lines:
        order, _, text = line.rstrip("\n").partition(" ")
        if order == "exit":
            return int(text)
        if order == "eval":
            say(repr(eval(text, context)))
        if order == "exec":
            exec(text, context)
    return 0


def grandchild(code="import signal; signal.pause()", **options):
    """Start a process below the worker and return its pid."""
    return subprocess.Popen([sys.executable, "-S", "-c", code], **options).pid


def daemon():
    """Start what daemons do: fork, a session of its own, fork again, the parents gone. Return its pid."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        if (grandchild_pid := os.fork()) == 0:
            os.close(writer)
            while True:
                signal.pause()
        os.write(writer, b"%d" % grandchild_pid)
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reader, 20))
