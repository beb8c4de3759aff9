"""Two network namespaces with an emulated link between them: the kernel's own emulator is often not built in.

`link.py RATE_MBIT RTT_MS COMMAND0 COMMAND1` runs each command in a namespace of its own, the first at 10.9.0.1 and the
second at 10.9.0.2 behind the interface `emulated`. Every packet takes its length over the rate behind the one before, and
half of the round trip. Needs root and /dev/net/tun.
"""

import array
import collections
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import time

INTERFACE = "emulated"
ADDRESSES = ("10.9.0.1", "10.9.0.2")
MTU = 65000
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000


def enter(side):
    """In a child: a namespace with the link's interface, whose packets the descriptor that comes back carries."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace needs root")
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
    for command in (f"addr add {ADDRESSES[side]}/24 dev {INTERFACE}", f"link set {INTERFACE} mtu {MTU} up",
                    "link set lo up"):
        subprocess.run(["ip", *command.split()], check=True)
    return tun


def start(side, command):
    """Runs a command behind the link; its process and the interface's descriptor."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    process = os.fork()
    if process == 0:
        here.close()
        try:
            tun = enter(side)
            there.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tun]))])
            there.recv(1)
            os.close(tun)
            os.execvp("sh", ["sh", "-c", command])
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    there.close()
    message, ancillary, _, _ = here.recvmsg(1, socket.CMSG_SPACE(4))
    if not message:
        raise SystemExit("the link could not be made")
    return process, array.array("i", ancillary[0][2])[0], here


def carry(source, target, bits_per_second, delay_s):
    """Carries packets one way."""
    under_way = collections.deque()
    some = threading.Condition()

    def deliver():
        while True:
            with some:
                while not under_way:
                    some.wait()
                due, packet = under_way.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                os.write(target, packet)
            except OSError:
                pass

    threading.Thread(target=deliver, daemon=True).start()
    free_at = 0.0
    while True:
        packet = os.read(source, MTU + 64)
        free_at = max(free_at, time.monotonic()) + 8 * len(packet) / bits_per_second
        with some:
            under_way.append((free_at + delay_s, packet))
            some.notify()


def main():
    rate, rtt, *commands = sys.argv[1:]
    ends = [start(side, command) for side, command in enumerate(commands)]
    for source, target in ((0, 1), (1, 0)):
        threading.Thread(target=carry, daemon=True, args=(
            ends[source][1], ends[target][1], 1e6 * float(rate), float(rtt) / 2000)).start()
    for _, _, channel in ends:
        channel.send(b"g")
    statuses = [os.waitpid(process, 0)[1] for process, _, _ in ends]
    sys.exit(1 if any(statuses) else 0)


if __name__ == "__main__":
    main()
