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
    lines = channel.makefile("rw", buffering=1, encoding="utf-8")
    context = {
        "numbers": (socket_fd, board_fd, output_fd, error_fd, leader_bell, controller_bell),
        "started": [],
        **{module.__name__: module for module in (ctypes, os, re, resource, signal, subprocess, sys, time)},
        "grandchild": grandchild,
        "say": lambda answer: lines.write(f"{answer}\n"),
    }
    lines.write("ready\n")
    for line in lines:
        order, _, text = line.rstrip("\n").partition(" ")
        if order == "exit":
            return int(text)
        if order == "eval":
            lines.write(f"{eval(text, context)!r}\n")
        if order == "exec":
            exec(text, context)
    return 0


def grandchild(code="import time; time.sleep(1000)", **options):
    """Start a process below the worker and return its pid."""
    return subprocess.Popen([sys.executable, "-S", "-c", code], **options).pid
