"""One party of SPU: `spu_party.py RANK TOKENS --protocol SEMI2K|CHEETAH ...` (see party.py). SEMI2K's triples come from a
trusted first party, which makes all of them itself; CHEETAH needs nobody else."""

import os
import pickle
import socket
import struct
import threading
import time

import party

options = party.arguments(("--protocol", "SEMI2K"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import spu  # noqa: E402
import spu.libspu as spu_core  # noqa: E402
import spu.utils.frontend as frontend  # noqa: E402

import block  # noqa: E402

HOSTS = options.hosts.split(",")
PORT, SIDE_PORT = 29600, 29610


def norm(x, w, name):
    centred = x - jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(centred * centred, -1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + block.EPSILON) * w[name + ".gain"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def run(x, w):
    tokens = x.shape[0]
    parts = jnp.split(linear(norm(x, w, "norm1"), w, "qkv"), 3, -1)
    q, k, v = (part.reshape(tokens, block.HEADS, -1).transpose(1, 0, 2) for part in parts)
    causal = jnp.tril(jnp.ones((tokens, tokens), bool))
    # SPU's exponential is wrong far below 0; scores here are within 30.
    scores = jnp.where(causal, q @ k.transpose(0, 2, 1) / np.float32((block.WIDTH // block.HEADS) ** 0.5), -30.0)
    e = jnp.exp(scores - jnp.max(scores, -1, keepdims=True)) * causal
    mixed = (e / jnp.sum(e, -1, keepdims=True)) @ v
    x = x + linear(mixed.transpose(1, 0, 2).reshape(tokens, block.WIDTH), w, "mix")
    return x + linear(jax.nn.gelu(linear(norm(x, w, "norm2"), w, "up"), approximate=True), w, "down")


class Side:
    """A plain connection for the shares of inputs and outputs, and to begin together."""

    def __init__(self):
        if options.rank == party.CLIENT:
            with socket.create_server((HOSTS[0], SIDE_PORT)) as listener:
                self.socket = listener.accept()[0]
            return
        for attempt in range(600):
            try:
                self.socket = socket.create_connection((HOSTS[0], SIDE_PORT))
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the client does not listen")

    def send(self, value):
        data = pickle.dumps(value)
        self.socket.sendall(struct.pack("<Q", len(data)) + data)

    def receive(self):
        return pickle.loads(self.read(struct.unpack("<Q", self.read(8))[0]))

    def read(self, length):
        data = bytearray()
        while len(data) < length:
            data += self.socket.recv(min(1 << 20, length - len(data)))
        return bytes(data)

    def exchange(self, value):
        sender = threading.Thread(target=self.send, args=(value,))
        sender.start()
        received = self.receive()
        sender.join()
        return received


weights, x = block.make(options.tokens)
flat, _ = jax.tree_util.tree_flatten((x, weights))
names = [f"in{i}" for i in range(len(flat))]
compiler = spu_core.CompilerOptions()
compiler.enable_optimize_denominator_with_broadcast = True
executable, _ = frontend.compile(
    frontend.Kind.JAX, run, (x, weights), {}, names, [spu_core.Visibility.VIS_SECRET] * len(names),
    lambda outputs: [f"out{i}" for i in range(len(outputs))], copts=compiler)

is_cheetah = options.protocol == "CHEETAH"
config = spu_core.RuntimeConfig(
    protocol=getattr(spu_core.ProtocolKind, options.protocol), field=spu_core.FieldType.FM64)
config.beaver_type = spu_core.RuntimeConfig.BeaverType.TrustedFirstParty
config.experimental_enable_colocated_optimization = is_cheetah
link = spu_core.link.Desc()
link.recv_timeout_ms = link.http_timeout_ms = 600_000
link.connect_retry_times, link.connect_retry_interval_ms = 100, 200
for rank, host in enumerate(HOSTS):
    link.add_party(f"p{rank}", f"{host}:{PORT + rank}")
side = Side()
context = spu_core.link.create_brpc(link, options.rank)
runtime, io = spu.Runtime(context, config), spu.Io(2, config)

mine = flat[:1] if options.rank == party.CLIENT else flat[1:]
shares = [io.make_shares(np.ascontiguousarray(array), spu_core.Visibility.VIS_SECRET,
                         options.rank if is_cheetah else -1) for array in mine]
received = side.exchange([pair[1 - options.rank] for pair in shares])
own = [pair[options.rank] for pair in shares]
for name, share in zip(names, own + received if options.rank == party.CLIENT else received + own):
    runtime.set_var(name, share)

seconds, sent = [], []
for _ in range(options.runs):
    side.exchange("begin")
    before, begin = party.sent_bytes(options.interface), time.time()
    runtime.run(executable)
    side.exchange("end")
    seconds.append(time.time() - begin)
    sent.append(party.sent_bytes(options.interface) - before)
output = runtime.get_var(executable.output_names[0])
other = side.exchange(output)
y = io.reconstruct([output, other]) if options.rank == party.CLIENT else None
party.print_result(seconds, sent, y)
context.stop_link()
os._exit(0)
