"""Mounts a file system at a folder that never answers, as a dead server's: whoever looks into it hangs.

It says "mounted", and takes it away at the end of its standard input.
"""

import ctypes
import os
import sys

[at] = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
# FUSE (fs/fuse/inode.c) asks its server first of all, and holds everybody until that is answered.
server = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
if libc.mount(b"dead", at.encode(), b"fuse", 0, options.encode()) != 0:
    sys.exit(f"mounting at {at}: {os.strerror(ctypes.get_errno())}")
print("mounted", flush=True)
sys.stdin.read()
# Whoever hangs gets an error now.
os.close(server)
libc.umount2(at.encode(), 2)
