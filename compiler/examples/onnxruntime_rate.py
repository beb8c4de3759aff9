"""How fast onnxruntime runs a model, and how far its outputs are: onnxruntime_rate.py MODEL.onnx THREADS IO.npz, with
the file that the example clear_rate wrote."""

import sys
import time

import numpy
import onnxruntime

model, threads, io = sys.argv[1], int(sys.argv[2]), numpy.load(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
inputs = {i.name: io[i.name] for i in session.get_inputs()}
seconds = []
for _ in range(10):
    start = time.perf_counter()
    outputs = session.run(None, inputs)
    seconds.append(time.perf_counter() - start)
print(f"run: best {min(seconds):.3f} s, median {sorted(seconds)[5]:.3f} s of 10")
for output, found in zip(session.get_outputs(), outputs):
    expected = io[output.name]
    print(f"{output.name}: largest difference {abs(found - expected).max():.1e} of {abs(found).max():.1e}")
