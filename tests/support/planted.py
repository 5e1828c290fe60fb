#!/usr/bin/env python3
"""The same as planted.c, for hosts without a compiler; without the overflow."""

import os
import signal
import sys
import time

name = sys.argv[1]
with open(sys.argv[2], "rb") if len(sys.argv) > 2 else sys.stdin.buffer as file:
    data = file.read()
place = data.find(b"Z")
if place >= 0:
    if name == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "assert":
        sys.stderr.write("planted: planted.c:25: bug: Assertion `place > length' failed.\n")
        os.kill(os.getpid(), signal.SIGABRT)
    if name.startswith("exit"):
        sys.exit(int(name[4:]))
    if name == "hang":
        print("going to sleep", flush=True)
        time.sleep(3600)
    if name == "report":
        sys.stderr.write(
            f"{'=' * 65}\n=={os.getpid()}==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1 at pc 0x2\n"
            "    #0 0x55555 in __interceptor_memcpy (/lib/libasan.so.8+0x1234)\n"
            f"    #1 0x55556 in parse /src/parse.c:{place}\n    #2 0x55557 in main /src/main.c:5\n\n"
        )
        sys.exit(1)
