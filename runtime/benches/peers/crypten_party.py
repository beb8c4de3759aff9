"""One party of CrypTen: `crypten_party.py RANK TOKENS ...` (see party.py). Triples come from a trusted first party: the
client makes all of them itself, for free and without protecting the server."""

import os
import time

import party

options = party.arguments()
os.environ.update(
    RANK=str(options.rank), WORLD_SIZE="2", DISTRIBUTED_BACKEND="gloo", GLOO_SOCKET_IFNAME=options.interface,
    RENDEZVOUS=f"tcp://{options.hosts.split(',')[0]}:29500", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import crypten  # noqa: E402
import crypten.communicator  # noqa: E402
import torch  # noqa: E402

import block  # noqa: E402

torch.set_num_threads(1)
crypten.init()
parties = crypten.communicator.get()
weights, x = block.make(options.tokens)


def shared(array, owner):
    own = torch.tensor(array) if options.rank == owner else torch.zeros(array.shape)
    return crypten.cryptensor(own, src=owner)


w = {name: shared(value, party.SERVER) for name, value in weights.items()}
x = shared(x, party.CLIENT)
causal = torch.tril(torch.ones(options.tokens, options.tokens))


def norm(x, name):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * (variance + block.EPSILON).inv_sqrt() * w[name + ".gain"] + w[name + ".bias"]


def linear(x, name):
    return x.matmul(w[name + ".weight"]) + w[name + ".bias"]


def gelu(x):
    return x * 0.5 * (1 + ((x + x * x * x * 0.044715) * 0.7978845608).tanh())


def run(x):
    tokens, size = options.tokens, block.WIDTH // block.HEADS
    qkv = linear(norm(x, "norm1"), "qkv")
    q, k, v = (qkv[:, i * block.WIDTH:(i + 1) * block.WIDTH].reshape(tokens, block.HEADS, size).transpose(0, 1)
               for i in range(3))
    # CrypTen's softmax overflows where a mask is -1e9; scores here are within 30.
    scores = q.matmul(k.transpose(1, 2)) * size**-0.5 * causal + (1 - causal) * -30.0
    mixed = scores.softmax(-1).matmul(v).transpose(0, 1).reshape(tokens, block.WIDTH)
    x = x + linear(mixed, "mix")
    return x + linear(gelu(linear(norm(x, "norm2"), "up")), "down")


seconds, sent = [], []
for _ in range(options.runs):
    parties.barrier()
    before, begin = party.sent_bytes(options.interface), time.time()
    y = run(x)
    parties.barrier()
    seconds.append(time.time() - begin)
    sent.append(party.sent_bytes(options.interface) - before)
y = y.get_plain_text()
party.print_result(seconds, sent, y.numpy() if options.rank == party.CLIENT else None)
# Gloo's threads do not end by themselves.
os._exit(0)
