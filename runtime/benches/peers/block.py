"""What is compared: one block of GPT-2 small behind a hidden state of the client's, everything else the server's.

The same random numbers for every system: `python block.py FOLDER TOKENS` writes block.onnx, input.npz and
reference.npz (float64 arithmetic) for Marill; the peers' drivers call `make`.
"""

import sys

import numpy as np

WIDTH, HEADS, INNER = 768, 12, 3072
EPSILON = 1e-5


def make(tokens):
    """Weights by name and the hidden states `[tokens, WIDTH]`."""
    numbers = np.random.default_rng(1)

    def normal(*shape, deviation, mean=0.0):
        return (mean + deviation * numbers.standard_normal(shape)).astype(np.float32)

    weights = {}
    for norm in ("norm1", "norm2"):
        weights[norm + ".gain"] = normal(WIDTH, deviation=0.1, mean=1.0)
        weights[norm + ".bias"] = normal(WIDTH, deviation=0.02)
    layers = {"qkv": (WIDTH, 3 * WIDTH, 0.05), "mix": (WIDTH, WIDTH, 0.02),
              "up": (WIDTH, INNER, 0.03), "down": (INNER, WIDTH, 0.02)}
    for layer, (rows, columns, deviation) in layers.items():
        weights[layer + ".weight"] = normal(rows, columns, deviation=deviation)
        weights[layer + ".bias"] = normal(columns, deviation=0.02)
    return weights, normal(tokens, WIDTH, deviation=1.0)


def reference(weights, x):
    """The block in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = x.astype(np.float64)
    tokens = len(x)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return scaled * w[name + ".gain"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    q, k, v = (part.reshape(tokens, HEADS, -1).transpose(1, 0, 2)
               for part in np.split(linear(norm(x, "norm1"), "qkv"), 3, -1))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (e / e.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(tokens, WIDTH)
    x = x + linear(mixed, "mix")
    up = linear(norm(x, "norm2"), "up")
    gelu = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return x + linear(gelu, "down")


def onnx_model(weights, tokens):
    """The block as an ONNX model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], [numpy_helper.from_array(value, name) for name, value in weights.items()]

    def constant(name, value):
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(op, inputs, **attributes):
        name = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def norm(x, name):
        return node("LayerNormalization", [x, name + ".gain", name + ".bias"], axis=-1, epsilon=EPSILON)

    def linear(x, name):
        return node("Add", [node("MatMul", [x, name + ".weight"]), name + ".bias"])

    split = constant("split", np.array([WIDTH] * 3, np.int64))
    by_head = constant("by_head", np.array([tokens, HEADS, WIDTH // HEADS], np.int64))
    joined = constant("joined", np.array([tokens, WIDTH], np.int64))
    root = constant("root", np.float32(np.sqrt(WIDTH // HEADS)).reshape(()))
    hidden = np.where(np.tril(np.ones((tokens, tokens), bool)), 0, np.finfo(np.float32).min)
    mask = constant("mask", hidden.astype(np.float32))

    qkv = linear(norm("x", "norm1"), "qkv")
    nodes.append(helper.make_node("Split", [qkv, split], ["q", "k", "v"], name="Split_qkv", axis=-1))
    q, k, v = (node("Transpose", [node("Reshape", [part, by_head])], perm=perm)
               for part, perm in (("q", [1, 0, 2]), ("k", [1, 2, 0]), ("v", [1, 0, 2])))
    scores = node("Add", [node("Div", [node("MatMul", [q, k]), root]), mask])
    mixed = node("MatMul", [node("Softmax", [scores], axis=-1), v])
    mixed = node("Reshape", [node("Transpose", [mixed], perm=[1, 0, 2]), joined])
    x = node("Add", ["x", linear(mixed, "mix")])
    up = node("Gelu", [linear(norm(x, "norm2"), "up")], approximate="tanh")
    nodes.append(helper.make_node("Add", [x, linear(up, "down")], ["y"], name="Add_y"))

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [tokens, WIDTH])

    graph = helper.make_graph(nodes, "block", [value("x")], [value("y")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


if __name__ == "__main__":
    import os

    import onnx

    folder, tokens = sys.argv[1], int(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    weights, x = make(tokens)
    onnx.save(onnx_model(weights, tokens), os.path.join(folder, "block.onnx"))
    np.savez(os.path.join(folder, "input.npz"), x=x)
    np.savez(os.path.join(folder, "reference.npz"), y=reference(weights, x).astype(np.float32))
