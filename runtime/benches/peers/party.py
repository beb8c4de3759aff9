"""What both peers' drivers share: the command line, counting bytes, and the line of results."""

import argparse
import json
import resource

import numpy as np

import block

CLIENT, SERVER = 0, 1


def arguments(*more):
    """`RANK TOKENS --hosts CLIENT,SERVER --interface NAME --runs N`, and flags of a driver's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rank", type=int, choices=(CLIENT, SERVER))
    parser.add_argument("tokens", type=int)
    parser.add_argument("--hosts", default="127.0.0.1,127.0.0.1")
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--runs", type=int, default=2)
    for name, default in more:
        parser.add_argument(name, default=default)
    return parser.parse_args()


def sent_bytes(interface):
    """Bytes that left through a network interface, headers included."""
    with open("/proc/net/dev") as lines:
        for line in lines:
            name, _, counts = line.partition(":")
            if name.strip() == interface:
                return int(counts.split()[8])
    raise SystemExit(f"there is no network interface {interface}")


def print_result(seconds, sent, y=None):
    """One line of JSON: what each run took, the most memory in use and, where the result is known, its error."""
    result = {"seconds": seconds, "sent_bytes": sent,
              "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if y is not None:
        y = np.asarray(y, np.float64)
        error = np.abs(y - block.reference(*block.make(len(y))))
        result["error"] = float(error.max()) if np.isfinite(error).all() else None
    print("RESULT " + json.dumps(result), flush=True)
