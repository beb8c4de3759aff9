"""Collects ONNX's own node tests of the operators that the importer knows, as tests/onnx_nodes.rs runs them.

    pip install onnx==1.23.2 numpy
    python3 tests/onnx_nodes/collect.py

rewrites `cases.npz` and `manifest.json` beside this file. The first holds one array of bytes: for each case of the
manifest, in order, its model, the samples of its inputs and its expected outputs, each a protobuf message after its
length in 4 bytes, little endian. Samples are named, of type FLOAT, INT64 or BOOL, as raw data. One stream of bytes,
because neighbours are much alike and compress together.

The manifest says what was done to each case, and why the others were left out.
"""

import collections
import json
import pathlib
import re
import struct
import warnings
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

FOLDER = pathlib.Path(__file__).resolve().parent
SUPPORT = FOLDER.parent.parent / "docs" / "onnx-support.md"
OLDEST, NEWEST = 11, 23

# Bytes of a case's samples.
MOST_BYTES = 32 * 1024

STORED = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float32,
    TensorProto.FLOAT16: np.float32,
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int64,
    TensorProto.BOOL: np.bool_,
}

# Operands that decide a shape, or which elements are chosen: models give them as initializers.
KNOWN = {
    "ConstantOfShape": [0],
    "CumSum": [1],
    "Dropout": [2],
    "Expand": [1],
    "Gather": [1],
    "GatherND": [1],
    "OneHot": [1, 2],
    "Pad": [1, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "ScatterND": [1],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
} | {f"Reduce{kind}": [1] for kind in ["L2", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]}

# Results that the operand's shape alone decides.
OF_SHAPES = {"Shape", "Size"}

# Relative to max(1, |expected|).
TOLERANCE = 1e-3
HALF_TOLERANCE = 5e-3


class LeftOut(Exception):
    """Why a case is not collected."""


def supported():
    """Operators of ONNX's own domain in the importer's table."""
    rows = re.findall(r"^\| ai\.onnx \| (\w+) \| \d+ to", SUPPORT.read_text(), re.MULTILINE)
    assert len(rows) > 50, f"{SUPPORT.name} lists {len(rows)} operators"
    return set(rows)


def opset_of(model):
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def examine(case, operators):
    """Raises where a case is of no concern."""
    model = case.model
    if any(entry.domain for entry in model.opset_import) or model.functions:
        raise LeftOut("of another domain")
    unknown = sorted({node.op_type for node in model.graph.node} - operators)
    if unknown:
        raise LeftOut(f"operators that are not in the table: {' '.join(unknown)}")
    if "training" in case.name:
        raise LeftOut("training")
    for value in [*model.graph.input, *model.graph.output]:
        if not value.type.HasField("tensor_type"):
            raise LeftOut("values that are no tensors")
        element = value.type.tensor_type.elem_type
        if element not in STORED:
            raise LeftOut(f"elements of type {TensorProto.DataType.Name(element)}")
    assert len(case.data_sets) == 1, case.name


def at_opset(case, model, samples, expected):
    """The model at an opset that is read. Where that is another one, ONNX's own checker and reference say that the
    older or newer operators are the same."""
    version = opset_of(model)
    target = min(max(version, OLDEST), NEWEST)
    if target == version:
        return
    for entry in model.opset_import:
        entry.version = target
    model.ir_version = min(model.ir_version, 11)
    try:
        onnx.checker.check_model(model, full_check=True)
        found = ReferenceEvaluator(model).run(None, samples)
    except Exception:
        raise LeftOut(f"opset {version} and other operators in {target}") from None
    for ours, theirs in zip(found, expected):
        same = np.shape(ours) == theirs.shape
        same = same and np.allclose(ours, theirs, rtol=case.rtol, atol=case.atol, equal_nan=True)
        if not same:
            raise LeftOut(f"opset {version} and other results in {target}")


def known_inputs(graph):
    """Names of graph inputs that known operands are computed from."""
    makers = {name: node for node in graph.node for name in node.output}
    pending = [
        node.input[index]
        for node in graph.node
        for index in KNOWN.get(node.op_type, [])
        if index < len(node.input) and node.input[index]
    ]
    seen = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = makers.get(name)
        if node is not None and node.op_type not in OF_SHAPES:
            pending.extend(operand for operand in node.input if operand)
    return [value.name for value in graph.input if value.name in seen]


def dense(array):
    return numpy_helper.to_array(array) if isinstance(array, TensorProto) else np.asarray(array)


def stored(name, array, element):
    return numpy_helper.from_array(array.astype(STORED[element]), name)


def subject(case, cases):
    """The operator that a case is of, also where it is spelled out as others."""
    plain = cases.get(re.sub("_expanded.*", "", case.name), case)
    return plain.model.graph.node[0].op_type


def collect(case, op, operators):
    """A case's entry in the manifest, and its messages."""
    examine(case, operators)
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    inputs, outputs = case.data_sets[0]
    samples = {value.name: dense(array) for value, array in zip(graph.input, inputs, strict=True)}
    expected = [dense(array) for array in outputs]
    size = sum(array.nbytes for array in [*samples.values(), *expected])
    if size > MOST_BYTES:
        raise LeftOut(f"samples of more than {MOST_BYTES} bytes")
    at_opset(case, model, samples, expected)

    known = known_inputs(graph)
    for value in [value for value in graph.input if value.name in known]:
        graph.initializer.append(numpy_helper.from_array(samples[value.name], value.name))
        graph.input.remove(value)
    del graph.value_info[:]
    del model.metadata_props[:]
    model.ClearField("doc_string")
    graph.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("doc_string")

    messages = [model]
    for value in graph.input:
        messages.append(stored(value.name, samples[value.name], value.type.tensor_type.elem_type))
    for value, array in zip(graph.output, expected):
        messages.append(stored(value.name, array, value.type.tensor_type.elem_type))
    used = [opset_of(case.model), opset_of(model)]
    entry = {
        "case": case.name,
        "op": op,
        "opset": used[1],
        "inputs": len(graph.input),
        "outputs": len(graph.output),
    }
    if used[0] != used[1]:
        entry["published_opset"] = used[0]
    if known:
        entry["known"] = known
    elements = {value.type.tensor_type.elem_type for value in [*case.model.graph.input, *graph.output]}
    if TensorProto.FLOAT16 in elements:
        entry["tolerance"] = HALF_TOLERANCE
        entry["why"] = "expected values were rounded to float16"
    return entry, messages


def main():
    warnings.simplefilter("ignore")
    operators = supported()
    entries, left_out, stream = [], collections.defaultdict(list), bytearray()
    cases = {case.name: case for case in collect_testcases(None)}
    for _, case in sorted(cases.items()):
        try:
            entry, messages = collect(case, subject(case, cases), operators)
        except LeftOut as reason:
            left_out[str(reason)].append(case.name)
            continue
        entries.append(entry)
        for message in messages:
            data = message.SerializeToString(deterministic=True)
            stream += struct.pack("<I", len(data)) + data

    path = FOLDER / "cases.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        # The date is fixed, so that the same cases give the same bytes.
        name = zipfile.ZipInfo("cases.npy", (1980, 1, 1, 0, 0, 0))
        name.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(name, "w") as file:
            np.lib.format.write_array(file, np.frombuffer(bytes(stream), np.uint8), version=(1, 0))

    lines = ["{", f'"onnx": "{onnx.__version__}",', f'"default_tolerance": {TOLERANCE},', '"cases": [']
    lines.append(",\n".join(json.dumps(entry) for entry in entries))
    lines += ["],", '"left_out": {']
    reasons = sorted(left_out.items())
    lines.append(",\n".join(f"{json.dumps(reason)}: {json.dumps(names)}" for reason, names in reasons))
    lines += ["}", "}"]
    (FOLDER / "manifest.json").write_text("\n".join(lines) + "\n")

    print(f"{len(entries)} cases, {len(stream)} bytes, {path.stat().st_size} stored")
    shown = collections.Counter()
    for reason, names in reasons:
        shown[reason.split(":")[0]] += len(names)
    for reason, count in shown.most_common():
        print(f"left out: {count} with {reason}")


if __name__ == "__main__":
    main()
