"""Marill beside CrypTen and SPU: the same block, machine and link, one after the other, with ratios. See README.md."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import link

HERE = os.path.dirname(os.path.abspath(__file__))
SYSTEMS = ("marill dealer", "marill two-party", "crypten", "spu semi2k", "spu cheetah")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marill", required=True, help="folder of the programs marillc and marill")
    parser.add_argument("--crypten", required=True, help="Python of an environment with CrypTen, onnx and numpy")
    parser.add_argument("--spu", required=True, help="Python of an environment with SPU")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--network", default="loopback", help="loopback, or a rate and a round trip: 200Mbit,40ms")
    parser.add_argument("--runs", type=int, default=2, help="runs of each; the fastest counts")
    parser.add_argument("--only", choices=SYSTEMS, action="append", help="leave the others out; may be given again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        call([options.crypten, os.path.join(HERE, "block.py"), folder, str(options.tokens)])
        results = {}
        for system in options.only or SYSTEMS:
            print(f"{system} ...", file=sys.stderr, flush=True)
            results[system] = measure(options, system, folder)
    print(table(results, options))


def measure(options, system, folder):
    """Seconds online, seconds and bytes in all, peak memory of a party and largest error."""
    name, kind = system.split() if " " in system else (system, "")
    if name == "marill":
        return marill(options, kind, folder)
    python = os.path.abspath(getattr(options, name))
    command = [python, os.path.join(HERE, f"{name}_party.py"), "{rank}", str(options.tokens),
               "--runs", str(options.runs)]
    if kind:
        command += ["--protocol", kind.upper()]
    found = both(command, options.network)
    if len(found) != 2:
        return None
    best = min(range(options.runs), key=lambda i: found[0]["seconds"][i])
    seconds = found[0]["seconds"][best]
    # The loopback interface of a namespace carries both directions.
    parties = found[:1] if options.network == "loopback" else found
    return {"online": seconds, "total": seconds, "bytes": sum(one["sent_bytes"][best] for one in parties),
            "memory": max(one["peak_bytes"] for one in found), "error": found[0]["error"]}


def both(command, network):
    """The client's and the server's results."""
    def party(rank, more):
        return " ".join(part.format(rank=rank) for part in command + more) + " 2>&1"

    if network == "loopback":
        script = f"ip link set lo up; {party(1, [])} & {party(0, [])}; wait"
        run = ["unshare", "-n", "sh", "-c", script]
    else:
        rate, rtt = re.fullmatch(r"(\d+)Mbit,(\d+)ms", network).groups()
        more = ["--hosts", ",".join(link.ADDRESSES), "--interface", link.INTERFACE]
        run = [sys.executable, os.path.join(HERE, "link.py"), rate, rtt, party(0, more), party(1, more)]
    output = subprocess.run(run, capture_output=True, text=True).stdout
    lines = [json.loads(line[len("RESULT "):]) for line in output.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 2:
        print(output[-2000:], file=sys.stderr)
    # The client is the one that knows the error.
    return sorted(lines, key=lambda one: "error" not in one)


def marill(options, suite, folder):
    """As `marill demo` measures it: both parties, and the dealer where there is one, on this machine."""
    program = os.path.join(folder, suite)
    call([os.path.join(options.marill, "marillc"), os.path.join(folder, "block.onnx"), "-o", program,
          "--suite", suite, "--network", options.network, "--skip-check"])
    stats = os.path.join(folder, "stats.json")
    demo = [os.path.join(options.marill, "marill"), "demo", program, "--suite", suite,
            "--network", options.network, "--stats", stats, "--input", os.path.join(folder, "input.npz"),
            "--reference", os.path.join(folder, "reference.npz")]

    def run(*more):
        call(demo + list(more))
        with open(stats) as file:
            return read(json.load(file))

    best = min((run() for _ in range(options.runs)), key=lambda found: found["total"])
    # Where rounds go on beside preprocessing, a phase's own time takes runs of their own.
    best["online"] = min(run("--in-turn")["online"] for _ in range(options.runs))
    return best


def read(report):
    """From a report of `marill demo --stats`."""
    phases = [report[phase] for phase in ("setup", "preprocess", "online")]
    return {"online": report["online"]["seconds"], "total": sum(phase["seconds"] for phase in phases),
            "bytes": sum(sent or 0 for phase in phases for sent in phase["bytes_sent"].values()),
            "memory": max(peak or 0 for peak in report["peak_rss_bytes"].values()),
            "error": report["max_abs_error"]}


def call(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def table(results, options):
    lines = [f"one GPT-2-small block, {options.tokens} tokens, everything private, {options.network}",
             "| system | online s | in all s | MB | peak GB of a party | largest error |",
             "|---|---:|---:|---:|---:|---:|"]
    for system, one in results.items():
        if one is None:
            lines.append(f"| {system} | failed | | | | |")
            continue
        error = "not finite" if one["error"] is None else f"{one['error']:.1e}"
        lines.append(f"| {system} | {one['online']:.2f} | {one['total']:.2f} | {one['bytes'] / 1e6:.0f} | "
                     f"{one['memory'] / 1e9:.2f} | {error} |")
    lines += ["", "how many times longer the peer takes, online and in all, and how many times more it sends:",
              "| | " + " | ".join(f"{peer}" for peer in results if "marill" not in peer) + " |",
              "|---|" + "---:|" * sum("marill" not in peer for peer in results)]
    for system, ours in results.items():
        if "marill" not in system or ours is None:
            continue
        row = []
        for peer, theirs in results.items():
            if "marill" in peer:
                continue
            row.append("" if theirs is None else " / ".join(
                f"{theirs[key] / ours[key]:.1f}" for key in ("online", "total", "bytes")))
        lines.append(f"| {system} | " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
