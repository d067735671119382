#!/usr/bin/env python3
"""Runs a command on a terminal and types answers when their prompts appear; prints what the terminal showed.
   typed.py PROMPT ANSWER [PROMPT ANSWER...] -- COMMAND..."""
import os
import pty
import select
import sys
import time

split = sys.argv.index("--")
pairs = sys.argv[1:split]
todo = list(zip(pairs[0::2], pairs[1::2]))
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[split + 1], sys.argv[split + 1:])
shown, seen, deadline = b"", 0, time.monotonic() + 60
while time.monotonic() < deadline:
    if not select.select([fd], [], [], 1)[0]:
        continue
    try:
        got = os.read(fd, 4096)
    except OSError:  # the terminal's other side is closed
        got = b""
    if not got:
        break
    shown += got
    if todo and todo[0][0].encode() in shown[seen:]:
        seen = len(shown)
        os.write(fd, todo.pop(0)[1].encode() + b"\n")
sys.stdout.write(shown.decode(errors="replace").replace("\r\n", "\n"))
if time.monotonic() >= deadline:
    os.kill(pid, 9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or (1 if todo else 0))
